"""FSDP on two ranks: what is sharded, how long gathered weights live, what travels when, and in which precision."""

from __future__ import annotations

import pytest
from tests.parallel import checks, fsdp_on_ranks
from torch import nn

from stepbench.parallel.unit_plan import plan
from stepbench.parallel.visit_order import VisitOrder


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    return checks.on_ranks(fsdp_on_ranks, 2)


@pytest.mark.parametrize("name", checks.names(fsdp_on_ranks))
def test_on_two_ranks(failures: dict[str, str], name: str) -> None:
    assert failures[name] == "", failures[name]


def test_a_block_is_a_unit_and_so_is_what_stands_outside() -> None:
    module = fsdp_on_ranks.Model()
    units = plan(module)
    assert [len(unit.weights) for unit in units] == [1, 2, 2, 2, 2, 1]
    assert [unit.users for unit in units[1:-1]] == [[block] for block in module.blocks]
    assert units[0].users == [module.embedding]


def test_a_weight_that_is_tied_across_blocks_is_a_unit_of_its_own() -> None:
    module = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(2))
    module[1][1].weight = module[0][0].weight
    units = plan(module)
    assert [len(unit.weights) for unit in units] == [1, 1, 1]
    assert [[holder.module for holder in held] for held in units[0].holders] == [[module[0][0], module[1][1]]]


def test_a_weight_that_something_else_holds_as_well_stays_whole() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Bilinear(3, 3, 3))
    module.register_parameter("also", module[0].weight)
    assert plan(module) == []


def test_what_comes_next_is_foretold_as_long_as_it_is_like_last_time() -> None:
    order: VisitOrder[str] = VisitOrder(ahead=2)
    assert [order.visit(each) for each in "aabc"] == [[], [], [], []]
    assert not order.is_last("c")
    order.restart()
    assert [order.visit(each) for each in "aabc"] == [["b", "c"], [], ["c"], []]
    assert order.is_last("c")
    assert not order.is_last("b")
    order.restart()
    assert [order.visit(each) for each in "acb"] == [["b", "c"], [], []]
    order.restart()
    order.restart()  # a pass without a visit changes nothing
    assert order.visit("a") == ["c", "b"]
