"""Which rank is blamed."""

from __future__ import annotations

import pytest

from stepbench.parallel import outcome
from stepbench.parallel.outcome import ERROR, OK, STOPPED, TIMEOUT, RankError, RankOutcome, RankTimeoutError

LOST = "raised RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:29616."
IN_COLLECTIVE = 'Stack (most recent call first):\n  File "/x/torch/distributed/c10d.py", line 3252 in all_reduce\n'
ELSEWHERE = 'Stack (most recent call first):\n  File "/x/train.py", line 12 in load_batch\n'


def raised(rank: int, reason: str, at_s: float) -> RankOutcome:
    exception, _, message = reason.removeprefix("raised ").partition(": ")
    return RankOutcome(rank, ERROR, reason=reason, exception=exception, message=message, ended_s=at_s)


def died(rank: int, at_s: float) -> RankOutcome:
    return RankOutcome(rank, ERROR, reason="was killed by SIGKILL", exit_code=-9, ended_s=at_s)


@pytest.mark.parametrize(
    ("outcomes", "blamed"),
    [
        ([RankOutcome(0, OK), RankOutcome(1, OK)], None),
        # A lost connection is a consequence, although it may be noted earlier than a death is seen.
        ([raised(0, LOST, 1.0), died(1, 1.02)], 1),
        ([raised(0, LOST, 1.0), raised(1, "raised ValueError: no", 2.0)], 1),
        # If all have lost a connection, the first may have had its own reason.
        ([raised(0, LOST, 2.0), raised(1, LOST, 1.0)], 1),
        # The earliest of several with a reason of their own; a death counts from when the rank was last seen alive.
        ([raised(0, "raised ValueError: no", 2.0), raised(1, "raised KeyError: 'x'", 1.0)], 1),
        ([raised(0, "raised ValueError: no", 1.03), died(1, 1.01)], 1),
        ([raised(0, "raised ValueError: no", 1.0), died(1, 1.01)], 0),
        # A failure before a hang, and of those that hang the one that does not wait for the others.
        ([RankOutcome(0, TIMEOUT, traceback=ELSEWHERE), died(1, 1.0)], 1),
        ([RankOutcome(0, TIMEOUT, traceback=IN_COLLECTIVE), RankOutcome(1, TIMEOUT, traceback=ELSEWHERE)], 1),
        ([RankOutcome(0, TIMEOUT, traceback=IN_COLLECTIVE), RankOutcome(1, TIMEOUT, traceback=IN_COLLECTIVE)], 0),
        ([RankOutcome(0, OK), RankOutcome(1, TIMEOUT)], 1),
        ([RankOutcome(0, OK), RankOutcome(1, STOPPED), RankOutcome(2, STOPPED)], 1),
    ],
)
def test_the_cause_is_told_from_its_consequences(outcomes: list[RankOutcome], blamed: int | None) -> None:
    found = outcome.blame(outcomes)
    assert (found.rank if found else None) == blamed


def test_results_are_returned_or_the_reason_is_raised() -> None:
    assert outcome.results([RankOutcome(0, OK, result=1), RankOutcome(1, OK, result=None)]) == [1, None]
    with pytest.raises(RankError, match=r"^rank 1 was killed by SIGKILL$") as caught:
        outcome.results([RankOutcome(0, STOPPED), died(1, 1.0)])
    assert not isinstance(caught.value, RankTimeoutError)
    with pytest.raises(RankTimeoutError, match=r"^rank 2 was slow; still running as well: 0, 1$"):
        outcome.results(
            [
                RankOutcome(0, TIMEOUT, traceback=IN_COLLECTIVE),
                RankOutcome(1, TIMEOUT, traceback=IN_COLLECTIVE),
                RankOutcome(2, TIMEOUT, reason="was slow", traceback=ELSEWHERE),
            ]
        )
    # Never a result for a rank that was stopped.
    with pytest.raises(RankError):
        outcome.results([RankOutcome(0, OK), RankOutcome(1, STOPPED)])


@pytest.mark.parametrize(
    "text",
    [
        "Connection closed by peer [127.0.0.1]:1",
        "Read error [127.0.0.1]:1: Connection reset by peer",
        "writev [127.0.0.1]:1: Broken pipe",
        "NCCL communicator was aborted on rank 0",
        "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
    ],
)
def test_what_backends_say_of_a_lost_peer_is_known(text: str) -> None:
    assert outcome.is_consequence(raised(0, f"raised RuntimeError: {text}", 0.0))


def test_ends_are_told_in_words() -> None:
    assert outcome.describe_exit(0) == "exited with status 0 and no result"
    assert outcome.describe_exit(-11) == "was killed by SIGSEGV"
    assert outcome.describe_exit(-99) == "was killed by signal 99"
    assert (
        outcome.describe_hang(ELSEWHERE, 2.5) == "had no result within 2.5 s, last seen in load_batch (/x/train.py:12)"
    )
    assert outcome.describe_hang("", 2.0) == "had no result within 2 s, last seen before its function began"
