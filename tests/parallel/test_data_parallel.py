"""Data parallelism on two ranks, and the order in which messages leave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parallel import checks, data_parallel_on_ranks

from stepbench.parallel.data_parallel import LaunchOrder


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    return checks.on_ranks(data_parallel_on_ranks, 2)


@pytest.mark.parametrize("name", checks.names(data_parallel_on_ranks))
def test_on_two_ranks(failures: dict[str, str], name: str) -> None:
    assert failures[name] == "", failures[name]


@given(st.integers(0, 12).flatmap(lambda count: st.tuples(st.just(count), st.permutations(range(count)), st.data())))
def test_messages_leave_in_order(drawn: tuple[int, list[int], st.DataObject]) -> None:
    """Some of them are never ready before the end."""
    count, ready, data = drawn
    order = LaunchOrder(count)
    for _ in range(2):  # steps
        seen = ready[: data.draw(st.integers(0, count))]
        left: list[int] = []
        for number, index in enumerate(seen):
            assert not order.is_ready(index)
            left += order.mark(index)
            assert order.is_ready(index)
            assert set(left) <= set(seen[: number + 1])
        left += order.rest()
        assert left == list(range(count))


def test_each_leaves_as_soon_as_those_before_it() -> None:
    order = LaunchOrder(4)
    assert list(order.mark(1)) == []
    assert list(order.mark(0)) == [0, 1]
    assert list(order.mark(3)) == []
    assert list(order.rest()) == [2, 3]
