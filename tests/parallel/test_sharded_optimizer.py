"""The sharded optimizer: who keeps what, and that its state can be saved and loaded whatever the number of ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.parallel import checks, state_on_ranks

from stepbench.parallel.launch import launch
from stepbench.parallel.pieces import balance

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def failures(folder: Path) -> dict[str, str]:
    return checks.on_ranks(state_on_ranks, 2, {"check_state_can_be_saved": {"folder": str(folder)}})


@pytest.mark.parametrize("name", checks.names(state_on_ranks))
def test_on_two_ranks(failures: dict[str, str], name: str) -> None:
    assert failures[name] == "", failures[name]


@pytest.fixture(scope="module")
def saved_by_two_ranks(failures: dict[str, str], folder: Path) -> Path:
    assert failures["check_state_can_be_saved"] == ""
    return folder


@pytest.mark.parametrize("ranks", [1, 3])
def test_state_of_two_ranks_is_loaded_on_another_number(saved_by_two_ranks: Path, ranks: int) -> None:
    launch(state_on_ranks.load, ranks, arguments={"folder": str(saved_by_two_ranks)}, backend="gloo", deadline_s=120)


@pytest.mark.parametrize("variant", state_on_ranks.VARIANTS)
def test_state_of_two_ranks_is_loaded_without_sharding(saved_by_two_ranks: Path, variant: str) -> None:
    """Into the optimizer that was sharded, in a process that knows nothing of ranks."""
    cls, options = state_on_ranks.OPTIMIZERS["AdamW"]
    expected, plain = state_on_ranks.single(cls, options, steps=4)
    saved = torch.load(saved_by_two_ranks / f"{variant}.pt", weights_only=True)
    module = state_on_ranks.layers()
    module.load_state_dict(saved["module"])
    optimizer = cls(state_on_ranks.groups(module), lr=0.7)
    optimizer.load_state_dict(saved["optimizer"])
    for step in (2, 3):
        optimizer.zero_grad()
        losses = [module(state_on_ranks.batch(10 * step + rank)).square().mean() for rank in range(2)]
        (sum(losses) / 2).backward()
        optimizer.step()
    state_on_ranks.assert_same(optimizer.state_dict(), plain.state_dict())
    state_on_ranks.assert_same(dict(module.state_dict()), dict(expected.state_dict()))


@given(
    sizes=st.lists(st.integers(0, 10**12), max_size=60),
    loads=st.lists(st.integers(0, 10**12), min_size=1, max_size=9),
)
def test_loads_even_out(sizes: list[int], loads: list[int]) -> None:
    """No rank that was given something ends more than the largest size above the least loaded one."""
    before = list(loads)
    owners = balance(sizes, loads)
    assert len(owners) == len(sizes)
    for rank, load in enumerate(loads):
        given_to = [size for size, owner in zip(sizes, owners, strict=True) if owner == rank]
        assert load == before[rank] + sum(given_to)
        if sum(given_to):
            assert load - max(sizes) <= min(loads)


def test_sizes_are_assigned_largest_first() -> None:
    assert balance([1, 2, 9, 4, 4], [0, 0]) == [0, 1, 0, 1, 1]
