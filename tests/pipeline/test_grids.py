from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbench.pipeline import grids
from stepbench.pipeline.mistakes import ConfigError


@dataclass(frozen=True)
class Cell:
    size: str
    strategy: Literal["naive", "flat", "bucketed"]
    bucket_mib: int | None = None
    causal: bool = False
    replicate: int = 0


def expand(*products: Any) -> tuple[Cell, ...]:
    return grids.expand(Cell, list(products), where=("experiments", "x", "cpu"))


def errors(*products: Any) -> list[str]:
    with pytest.raises(ValueError, match="experiments") as raised:
        expand(*products)
    return str(raised.value).splitlines()


def test_a_product_is_expanded_with_its_last_axis_fastest() -> None:
    found = expand({"size": ["xl", "nano"], "strategy": ["flat"], "replicate": [0, 1]})
    assert [(cell.size, cell.replicate) for cell in found] == [("xl", 0), ("xl", 1), ("nano", 0), ("nano", 1)]


def test_several_products_express_axes_that_depend_on_each_other() -> None:
    found = expand(
        {"size": ["xl"], "strategy": ["naive", "flat"]},
        {"size": ["xl"], "strategy": ["bucketed"], "bucket_mib": [1, 10]},
    )
    assert [(cell.strategy, cell.bucket_mib) for cell in found] == [
        ("naive", None),
        ("flat", None),
        ("bucketed", 1),
        ("bucketed", 10),
    ]


def test_a_cell_that_is_listed_twice_is_measured_once() -> None:
    product = {"size": ["xl"], "strategy": ["naive", "naive"]}
    assert expand(product, product) == (Cell("xl", "naive"),)


def test_axes_may_be_written_in_any_order_and_defaults_left_out() -> None:
    assert expand({"strategy": ["flat"], "causal": [True], "size": ["xl"]}) == (Cell("xl", "flat", causal=True),)


def test_no_product_is_no_cell() -> None:
    assert expand() == ()


@pytest.mark.parametrize("products", ["all", None, 3, {"size": ["xl"]}])
def test_a_grid_is_a_list(products: Any) -> None:
    with pytest.raises(ValueError, match=r"`experiments.x.cpu` must be a list of products of axis values, got "):
        grids.expand(Cell, products, where=("experiments", "x", "cpu"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "xl"}, "`experiments.x.cpu[0].size` must be a list of at least one value, got 'xl'"),
        ({"size": []}, "`experiments.x.cpu[0].size` must be a list of at least one value, got []"),
        ({"size": None}, "`experiments.x.cpu[0].size` must be a list of at least one value, got None"),
        ({"size": {"a": 1}}, "`experiments.x.cpu[0].size` must be a list of at least one value, got {'a': 1}"),
        ({"replicate": 0}, "`experiments.x.cpu[0].replicate` must be a list of at least one value, got 0"),
        (
            {"replicate": [-1]},
            "`experiments.x.cpu[0].replicate` must hold values that are a whole number from 0 without leading zeros, "
            "got -1",
        ),
        (
            {"replicate": [True]},
            "`experiments.x.cpu[0].replicate` must hold values that are a whole number from 0 without leading zeros, "
            "got True",
        ),
        ({"causal": ["true"]}, "`experiments.x.cpu[0].causal` must hold values that are true or false, got 'true'"),
        (
            {"size": [2.7]},
            "`experiments.x.cpu[0].size` must hold values that are a word of letters, digits, '.', '_' and '-', "
            "got 2.7",
        ),
        (
            {"size": [["xl"]]},
            "`experiments.x.cpu[0].size` must hold values that are a word of letters, digits, '.', '_' and '-', "
            "got ['xl']",
        ),
        (
            {"strategy": ["flatt"]},
            "`experiments.x.cpu[0].strategy` must hold values that are one of naive, flat, bucketed, got 'flatt'",
        ),
        (
            {"bucket_mib": ["none"]},
            "`experiments.x.cpu[0].bucket_mib` must hold values that are a whole number from 1 without leading zeros "
            "or none, got 'none'",
        ),
        (
            {"strategie": ["flat"]},
            "`experiments.x.cpu[0].strategie` is not an axis (did you mean strategy?); "
            "valid are size, strategy, bucket_mib, causal, replicate",
        ),
        (
            {1: ["flat"]},
            "`experiments.x.cpu[0].1` is not an axis; valid are size, strategy, bucket_mib, causal, replicate",
        ),
    ],
)
def test_each_mistake_is_one_sentence_with_the_keys_path(change: dict[Any, Any], message: str) -> None:
    assert errors({"size": ["xl"], "strategy": ["flat"], **change}) == [message]


def test_an_axis_without_default_must_be_given() -> None:
    assert errors({"size": ["xl"]}) == [
        "`experiments.x.cpu[0].strategy` must be given: a list of values, each one of naive, flat, bucketed"
    ]


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        expand({"size": "xl", "replikate": [0], "strategy": ["no", "flat", "nor"]}, "xl", {"size": ["ok"]})
    assert [(mistake.kind, *mistake.path[3:]) for mistake in raised.value.mistakes] == [
        ("unknown", 0, "replikate"),
        ("value", 0, "size"),
        ("value", 0, "strategy"),
        ("value", 0, "strategy"),
        ("value", 1),
        ("missing", 2, "strategy"),
    ]


@given(st.lists(st.builds(Cell, st.sampled_from("abc"), st.just("flat"), replicate=st.integers(0, 4)), unique=True))
def test_rounds_keep_the_order_inside_a_replicate(grid: list[Cell]) -> None:
    found = grids.in_rounds(grid)
    assert sorted(found, key=repr) == sorted(grid, key=repr)
    for replicate in range(5):
        assert [c for c in found if c.replicate == replicate] == [c for c in grid if c.replicate == replicate]
    assert [cell.replicate for cell in found] == sorted(cell.replicate for cell in grid)


def test_cells_without_replicates_keep_their_order() -> None:
    @dataclass(frozen=True)
    class Case:
        case: str

    assert grids.in_rounds([Case("b"), Case("a")]) == (Case("b"), Case("a"))
