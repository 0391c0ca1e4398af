from pathlib import Path

import pytest

from stepbench.pipeline import strict_yaml
from stepbench.pipeline.mistakes import Mistake

TEXT = """\
a: {b: no, b: 1}
list:
  - 010
  - {c.d: 1e-3}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(TEXT)
    return path


def test_each_mistake_is_a_value_with_its_keys_and_its_line(file: Path) -> None:
    found = [(each.kind, each.path, each.line) for each in strict_yaml.parse(file).mistakes]
    assert found == [
        ("notation", ("a", "b"), 1),
        ("duplicate", ("a", "b"), 1),
        ("notation", ("list", 0), 3),
        ("notation", ("list", 1, "c.d"), 4),
    ]
    assert {each.file for each in strict_yaml.parse(file).mistakes} == {file}


def test_every_key_and_element_has_its_line(file: Path) -> None:
    assert strict_yaml.parse(file).lines == {
        ("a",): 1,
        ("a", "b"): 1,
        ("list",): 2,
        ("list", 0): 3,
        ("list", 1): 4,
        ("list", 1, "c.d"): 4,
    }


def test_the_content_is_what_yaml_makes_of_it(file: Path) -> None:
    assert strict_yaml.parse(file).content == {"a": {"b": 1}, "list": [8, {"c.d": "1e-3"}]}
    file.write_text("")
    assert strict_yaml.parse(file) == strict_yaml.Parsed(None, (), {})


def test_what_a_caller_does_to_the_content_is_its_own_business(file: Path) -> None:
    strict_yaml.parse(file).content["a"]["b"] = 2
    assert strict_yaml.parse(file).content["a"] == {"b": 1}


def test_a_mistake_prints_as_file_line_and_sentence(file: Path) -> None:
    first, *_ = strict_yaml.parse(file).mistakes
    assert isinstance(first, Mistake)
    assert str(first) == f"{file}:1: expected `true` or `false`, got `no` (quote it to mean the string)"
