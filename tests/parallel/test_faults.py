"""A rank that raises, dies or hangs in the middle of a backward pass, with each strategy."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.parallel.faults_on_ranks import train_until_fault

from stepbench.parallel.launch import launch
from stepbench.parallel.outcome import RankError, RankTimeoutError

pytestmark = pytest.mark.ranks

STRATEGIES: dict[str, dict[str, Any]] = {
    "naive": {},
    "flat": {},
    "overlapped": {},
    "bucketed": {"bucket_mib": 4e-4},
    "sharded_broadcast": {"bucket_mib": 4e-4},
    "sharded_reduce_scatter": {"bucket_mib": 4e-4},
    "fsdp": {},
}
HANG_DEADLINE_S = 100.0  # all of them start at once, beside other tests, and must have begun to hang by then
FORKED_DEADLINE_S = 8.0  # of copies, one launch after the other
PATIENCE_S = 60.0
OTHERS_AT_A_TIME = 2  # launches of two ranks; more would only make them wait for a core


def fail(strategy: str, how: str, deadline_s: float, *, fork: bool = False) -> tuple[RankError, float]:
    started = time.monotonic()
    with pytest.raises(RankError) as caught:
        launch(
            train_until_fault,
            2,
            arguments={"strategy": strategy, "options": STRATEGIES[strategy], "how": how},
            backend="gloo",
            deadline_s=deadline_s,
            fork=fork,
        )
    return caught.value, time.monotonic() - started


@pytest.fixture(scope="module")
def failures() -> dict[tuple[str, str], tuple[RankError, float]]:
    """Every strategy with every fault."""
    quick = [(strategy, how) for how in ("raise", "kill") for strategy in STRATEGIES]
    hanging = [(strategy, "hang") for strategy in STRATEGIES]
    found: dict[tuple[str, str], tuple[RankError, float]] = {}
    for cases, at_a_time, deadline_s in ((quick, OTHERS_AT_A_TIME, 200.0), (hanging, len(hanging), HANG_DEADLINE_S)):
        with ThreadPoolExecutor(at_a_time) as pool:
            ended = pool.map(lambda case, deadline_s=deadline_s: fail(*case, deadline_s), cases)
            found |= dict(zip(cases, ended, strict=True))
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.timeout(400)
def test_a_rank_that_raises_is_named_with_its_own_exception(
    failures: dict[tuple[str, str], tuple[RankError, float]], strategy: str
) -> None:
    error, _ = failures[strategy, "raise"]
    assert not isinstance(error, RankTimeoutError)
    assert str(error).startswith("rank 1 raised ValueError: the second rank has had enough")
    assert error.traceback is not None
    assert "in fault" in error.traceback


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.timeout(400)
def test_a_rank_that_is_killed_is_named_with_the_signal(
    failures: dict[tuple[str, str], tuple[RankError, float]], strategy: str
) -> None:
    error, _ = failures[strategy, "kill"]
    assert not isinstance(error, RankTimeoutError)
    assert str(error) == "rank 1 was killed by SIGKILL"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.timeout(400)
def test_a_rank_that_hangs_is_named_at_the_deadline(
    failures: dict[tuple[str, str], tuple[RankError, float]], strategy: str
) -> None:
    error, took_s = failures[strategy, "hang"]
    assert isinstance(error, RankTimeoutError)
    # That it is 2 s at most is asked of a launch that is alone (`test_launch.py`).
    assert HANG_DEADLINE_S <= took_s < HANG_DEADLINE_S + PATIENCE_S
    assert error.rank == 1
    assert "last seen in hang_for_ever" in str(error)
    assert error.outcomes[0].status == "timeout"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_copy_of_the_launcher_that_hangs_is_named_too(strategy: str) -> None:
    """Its stack has the launcher's below it, of which nothing is told."""
    error, took_s = fail(strategy, "hang", FORKED_DEADLINE_S, fork=True)
    assert isinstance(error, RankTimeoutError)
    assert FORKED_DEADLINE_S <= took_s < FORKED_DEADLINE_S + PATIENCE_S
    assert error.rank == 1
    assert "last seen in hang_for_ever" in str(error)
    assert "elastic" not in (error.traceback or "")
    assert error.outcomes[0].traceback is not None
