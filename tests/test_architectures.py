"""The architecture of a GPU, and the table of tile shapes that it uses."""

import pytest

from stepbench import architectures


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [((8, 0), "sm_80"), ((8, 6), "sm_89"), ((8, 9), "sm_89"), ((9, 0), "sm_90"), ((10, 0), "sm_100"),
     ((10, 3), "sm_100"), ((11, 0), "sm_100"), ((12, 0), "sm_120"), ((12, 1), "sm_120"), ((13, 0), "sm_120"),
     ((7, 5), "sm_75")],
)  # fmt: skip
def test_the_table_that_a_device_uses(capability: tuple[int, int], architecture: str) -> None:
    assert architectures.architecture_of(capability) == architecture


def test_a_device_that_is_too_old_has_no_table() -> None:
    with pytest.raises(ValueError, match=r"`capability` must be 7\.5 or newer, got 7\.0"):
        architectures.architecture_of((7, 0))


def test_what_is_compiled_for_uses_the_table_of_its_capability() -> None:
    for target, table in architectures.TABLE_OF.items():
        digits = target.removeprefix("sm_")
        assert architectures.architecture_of((int(digits[:-1]), int(digits[-1]))) == table


@pytest.mark.parametrize(("told", "table"), [("9.0", "sm_90"), ("8.6", "sm_89"), ("12.1", "sm_120"), ("7.0", None)])
def test_a_capability_as_a_device_tells_it_has_the_same_table(told: str, table: str | None) -> None:
    assert architectures.table_of(told) == table
