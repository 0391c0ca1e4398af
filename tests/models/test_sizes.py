import subprocess
import sys
from pathlib import Path

import pytest

import stepbench
from stepbench.models.sizes import ModelSize, size_problems

NANO = {"d_model": 128, "d_ff": 512, "layers": 4, "heads": 4}


def test_a_valid_section_becomes_a_size() -> None:
    size = ModelSize.from_config("nano", NANO)
    assert size == ModelSize(d_model=128, d_ff=512, layers=4, heads=4)
    assert size.head_dim == 32


def test_a_size_may_have_a_vocabulary_of_its_own() -> None:
    assert ModelSize.from_config("gpt", NANO | {"vocabulary": 50304}) == ModelSize(128, 512, 4, 4, 50304)
    assert ModelSize(**NANO).vocabulary is None


def test_a_size_can_be_a_dictionary_key_and_cannot_change() -> None:
    size = ModelSize(**NANO)
    assert {size: 1}[ModelSize(**NANO)] == 1
    with pytest.raises(AttributeError):
        size.heads = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 7}, "`sizes.foo.heads` must divide d_model (128), got 7"),
        ({"heads": 256}, "`sizes.foo.heads` must divide d_model (128), got 256"),
        (
            {"d_model": 12, "heads": 4},
            "`sizes.foo.heads` must give an even head_dim, because rotary positions rotate pairs, "
            "got d_model 12 / heads 4 = 3",
        ),
        ({"layers": 0}, "`sizes.foo.layers` must be a positive integer, got 0"),
        ({"layers": -1}, "`sizes.foo.layers` must be a positive integer, got -1"),
        ({"layers": True}, "`sizes.foo.layers` must be a positive integer, got True"),
        ({"d_ff": 512.0}, "`sizes.foo.d_ff` must be a positive integer, got 512.0"),
        ({"d_ff": "512"}, "`sizes.foo.d_ff` must be a positive integer, got '512'"),
        ({"d_ff": None}, "`sizes.foo.d_ff` must be a positive integer, got None"),
        ({"vocabulary": 0}, "`sizes.foo.vocabulary` must be a positive integer, got 0"),
        ({"vocabulary": None}, "`sizes.foo.vocabulary` must be a positive integer, got None"),
        ({"depth": 3}, "`sizes.foo` must hold only the fields d_model, d_ff, layers, heads, vocabulary, got 'depth'"),
    ],
)
def test_one_sentence_says_what_must_hold_and_what_was_found(change: dict[str, object], message: str) -> None:
    section = NANO | change
    assert [str(problem) for problem in size_problems("foo", section)] == [message]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared below
        ModelSize.from_config("foo", section)
    assert str(caught.value) == message


@pytest.mark.parametrize("section", [None, 3, "nano", [128, 512, 4, 4]])
def test_what_is_no_mapping_is_refused(section: object) -> None:
    with pytest.raises(
        ValueError, match=r"`sizes\.foo` must be a mapping of d_model, d_ff, layers, heads, vocabulary, got "
    ):
        ModelSize.from_config("foo", section)


def test_all_problems_are_named_at_once() -> None:
    assert [str(problem) for problem in size_problems("foo", {"d_model": 0, "heads": True, 1: 2})] == [
        "`sizes.foo` must hold only the fields d_model, d_ff, layers, heads, vocabulary, got 1",
        "`sizes.foo.d_ff` must be given, got no d_ff",
        "`sizes.foo.layers` must be given, got no layers",
        "`sizes.foo.d_model` must be a positive integer, got 0",
        "`sizes.foo.heads` must be a positive integer, got True",
    ]


def test_a_size_made_in_code_is_checked_too() -> None:
    with pytest.raises(ValueError, match=r"^`heads` must divide d_model \(128\), got 3$"):
        ModelSize(d_model=128, d_ff=512, layers=4, heads=3)


def test_sizes_and_costs_import_the_standard_library_alone() -> None:
    code = (
        "import sys; before = set(sys.modules); import stepbench.models.sizes, stepbench.models.costs\n"
        "names = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(names - sys.stdlib_module_names))"
    )
    # -S hides site-packages, so that nothing but the standard library could be imported by accident.
    found = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(stepbench.__file__).parents[1])},
    )
    assert found.stdout.strip() == "['stepbench']"
