"""Every strategy ends with the parameters of one process that trains on the joined batch."""

from __future__ import annotations

from typing import Any

import pytest
from tests.parallel import equality_on_ranks

from stepbench.parallel.launch import launch
from stepbench.parallel.names import STRATEGIES
from stepbench.parallel.strategies import strategy

pytestmark = pytest.mark.ranks

TINY, SMALL = 1e-6, 4e-4  # MiB: every parameter a bucket; a few odd ones in each
# All of the registry but torch's own, which `test_strategies.py` looks at, and the one that synchronises nothing.
OURS: list[list[Any]] = [
    [name, {"bucket_mib": SMALL} if "bucket_mib" in strategy(name).options else {}]
    for name in STRATEGIES
    if name != "none" and not name.startswith("torch_")
]
# What else is compared on two ranks: the ends of the range of buckets, and another number of units ahead.
MORE: list[list[Any]] = [
    ["bucketed", {"bucket_mib": TINY}],
    ["bucketed", {"bucket_mib": 25}],
    ["sharded_reduce_scatter", {"bucket_mib": 25}],
    ["fsdp", {"prefetch": 0}],
]
COMPARED = {2: OURS + MORE, 3: OURS}
LABELS = {ranks: [equality_on_ranks.label(*entry) for entry in entries] for ranks, entries in COMPARED.items()}
SITUATIONS = list(equality_on_ranks.situations(1))
# Gradients are summed in another order than one process sums them, and nothing else differs. How much that is, the
# single process itself tells: "noise" is how far it is from itself when it averages the ranks' gradients. A strategy
# may be twice as far, plus a few roundings of the parameters themselves.
BAND = 8


# Each rank takes one of four branches at random in each of these steps.
BRANCH_STEPS = 50


@pytest.fixture(scope="module", params=COMPARED, ids=lambda ranks: f"{ranks} ranks")
def ranks(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def report(ranks: int) -> dict[str, Any]:
    arguments = {"strategies": COMPARED[ranks], "branch_steps": BRANCH_STEPS}
    return launch(equality_on_ranks.everything, ranks, arguments=arguments, backend="gloo", deadline_s=250)[0]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_strategy_equals_one_process(report: dict[str, Any], ranks: int, situation: str) -> None:
    assert list(report["equality"][situation]) == LABELS[ranks]
    for label, found in report["equality"][situation].items():
        assert found["ranks_agree"], label
        assert found["from_joined"] <= 2 * found["noise"] + BAND, (label, found)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_two_ranks_equal_one_process_to_the_bit(report: dict[str, Any], ranks: int, situation: str) -> None:
    """One process that adds up both ranks' halves: addition of two numbers has no order."""
    for label, found in report["equality"][situation].items():
        if ranks == 2 and "fsdp" not in label:
            assert found["from_averaged"] == 0, label


def test_what_has_no_gradient_is_left_alone(report: dict[str, Any]) -> None:
    """Frozen and never used parameters keep their bits, although the optimizer decays weights."""
    for label, found in report["equality"]["every step on other data"].items():
        kept = ["blocks.1.0.weight", "blocks.2.2.bias", "never.bias", "never.weight"]
        assert found["without_gradient"] == kept, label


def test_the_comparison_can_fail(report: dict[str, Any]) -> None:
    """Without synchronisation the ranks drift apart, and the distances say so."""
    found = report["unsynchronised"]["every step on other data"]["none"]
    assert not found["ranks_agree"]
    assert found["from_joined"] > 1e6 * (2 * found["noise"] + BAND)


@pytest.mark.parametrize("situation", ["every step on other data", "accumulation"])
def test_gradients_set_to_zero_instead_of_none(report: dict[str, Any], ranks: int, situation: str) -> None:
    """`zero_grad(set_to_none=False)` keeps the views into the buckets."""
    assert list(report["zeroed"][situation]) == [label for label in LABELS[ranks] if "fsdp" not in label]
    for label, found in report["zeroed"][situation].items():
        assert found["ranks_agree"], label
        assert found["from_joined"] <= 2 * found["noise"] + BAND, (label, found)


def test_ranks_on_different_branches(report: dict[str, Any], ranks: int) -> None:
    """In every step gradients become ready in another order on each rank, some on one alone: no hang, no mix-up."""
    for label, found in report["branches"].items():
        assert found["ranks_agree"], label
        assert found["from_averaged"] <= (0 if ranks == 2 else BRANCH_STEPS * BAND), (label, found)
