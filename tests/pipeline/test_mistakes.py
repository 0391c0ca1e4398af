from pathlib import Path

import pytest

from stepbench.pipeline import mistakes
from stepbench.pipeline.mistakes import ConfigError, Mistake


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("seed",), "seed"),
        (("sizes", "2.7B", "heads"), "sizes.2.7B.heads"),
        (("experiments", "warmup", "cpu", 0, "size"), "experiments.warmup.cpu[0].size"),
        (("experiments", "warmup", "cpu", 3), "experiments.warmup.cpu[3]"),
    ],
)
def test_a_path_is_written_as_people_do(path: tuple[str | int, ...], text: str) -> None:
    assert mistakes.dotted(path) == text


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (Mistake("value", "must be 1, got 2", ("a", 0)), "`a[0]` must be 1, got 2"),
        (Mistake("value", "must be 1, got 2", ("a",), Path("x.yaml"), 3), "x.yaml:3: `a` must be 1, got 2"),
        (Mistake("duplicate", "duplicate key `a`", ("a",), Path("x.yaml"), 3), "x.yaml:3: duplicate key `a`"),
        (Mistake("unreadable", "must be YAML, got [", file=Path("x.yaml")), "x.yaml: must be YAML, got ["),
        (Mistake("machine", "no GPU here"), "no GPU here"),
    ],
)
def test_the_sentence_names_place_and_key_where_they_are_known(mistake: Mistake, text: str) -> None:
    assert str(mistake) == text


def test_an_error_keeps_its_mistakes_and_its_text_has_a_line_for_each() -> None:
    first = Mistake("missing", "must be given, and it is missing", ("a",))
    error = ConfigError(first, "no GPU here")
    assert error.mistakes == (first, Mistake("machine", "no GPU here"))
    assert str(error) == "`a` must be given, and it is missing\nno GPU here"


@pytest.mark.parametrize(
    ("found", "text"), [("sise", " (did you mean size?); valid are size, seq"), ("q", "; valid are size, seq")]
)
def test_the_closest_name_is_suggested(found: str, text: str) -> None:
    assert mistakes.hint(found, ["size", "seq"]) == text
