"""What became of each rank, and which of them is to blame.

When one rank dies, the others die of it: their collectives end with "connection closed by peer". Torch's launcher
reports whichever process it happens to look at first. Here every rank notes its own exception with its time, and the
launcher notes until when it saw each process alive, so that the first cause can be told from its consequences.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

OK, ERROR, TIMEOUT, STOPPED = "ok", "error", "timeout", "stopped"

# What Gloo, NCCL and torch's store say when the other side is gone. An exception of this kind is a consequence, as long
# as any rank has a better one.
_CONSEQUENCE = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|socket (closed|timeout)|failed to recv|sendBytes failed"
    r"|recv(Value)?Vector|ncclRemoteError|NCCL communicator was aborted|remote process exited",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RankOutcome:
    """How one rank ended.

    Attributes:
        rank: its global rank.
        status: `ok`; `error` (it raised, died, or left without a result); `timeout` (it was still running at the
            deadline); `stopped` (it was well, and was ended because another rank had failed).
        reason: one sentence that begins with the verb ("raised ValueError: …"), None for `ok`.
        result: what its function returned, after a trip through JSON.
        exception: the type of what it raised, with its module ("torch.OutOfMemoryError"), or None.
        kind: which of `stepbench.process.failures.KINDS` that exception is, or None.
        message: the first line of its message, or None.
        traceback: of that exception; for a rank that hung, its stack at the deadline.
        exit_code: as `subprocess` gives it, negative for a signal; None if it never started.
        ended_s: `time.time()` of its exception, or when it was last seen alive.
        output: the end of what it wrote to stdout and stderr.
    """

    rank: int
    status: str
    reason: str | None = None
    result: Any = None
    exception: str | None = None
    kind: str | None = None
    message: str | None = None
    traceback: str | None = None
    exit_code: int | None = None
    ended_s: float = 0.0
    output: str = ""


class RankError(RuntimeError):
    """A launch that failed, with the rank that caused it.

    Attributes:
        rank: the rank to blame, -1 if it is none of them (the ranks never met).
        reason: what it did, one sentence.
        exception: the type of what it raised, with its module, or None.
        kind: which of `stepbench.process.failures.KINDS` this failure is: that of what the rank raised where it has one
            of its own (`oom`, `unsupported`, …), otherwise `rank_failed`, or `rank_deadline`.
        message: the first line of the message of what it raised, or None.
        traceback: its own traceback or stack, or None.
        outcomes: those of all ranks, in rank order.
    """

    kind = "rank_failed"

    def __init__(
        self, message: str, *, blamed: RankOutcome | None = None, outcomes: Sequence[RankOutcome] = ()
    ) -> None:
        super().__init__(message)
        self.rank = blamed.rank if blamed else -1
        self.reason = blamed.reason if blamed else message
        self.exception = blamed.exception if blamed else None
        if blamed and blamed.kind not in (None, "exception"):
            self.kind = blamed.kind
        self.message = blamed.message if blamed else None
        self.traceback = blamed.traceback if blamed else None
        self.outcomes = tuple(outcomes)


class RankTimeoutError(RankError):
    """A launch that was not done at its deadline."""

    kind = "rank_deadline"


def results(outcomes: Sequence[RankOutcome]) -> list[Any]:
    """Return what each rank's function returned, in rank order.

    Raises:
        RankTimeoutError: a rank was still running at the deadline, and no other had failed before.
        RankError: a rank failed.
    """
    blamed = blame(outcomes)
    if blamed is None:
        return [outcome.result for outcome in outcomes]
    error = RankTimeoutError if blamed.status == TIMEOUT else RankError
    message = f"rank {blamed.rank} {blamed.reason}"
    if waiting := [str(outcome.rank) for outcome in outcomes if outcome.status == TIMEOUT and outcome is not blamed]:
        message += f"; still running as well: {', '.join(waiting)}"
    raise error(message, blamed=blamed, outcomes=outcomes)


def blame(outcomes: Sequence[RankOutcome]) -> RankOutcome | None:
    """Return the outcome that caused the others, or None if all are well.

    The earliest failure, where a lost connection counts only if nobody has anything else, a rank that died without a
    word counts from when it was last seen alive, and a rank that hung counts only if none failed. Of several that hung,
    the one that was not waiting for the others.
    """
    by_status = {
        status: [outcome for outcome in outcomes if outcome.status == status] for status in (ERROR, TIMEOUT, STOPPED)
    }
    if failed := by_status[ERROR]:
        return min(failed, key=lambda outcome: (is_consequence(outcome), outcome.ended_s, outcome.rank))
    if hung := by_status[TIMEOUT]:
        return min(hung, key=lambda outcome: (waits_for_others(outcome.traceback or ""), outcome.rank))
    return next(iter(by_status[STOPPED]), None)


def is_consequence(outcome: RankOutcome) -> bool:
    """Return whether a rank failed because its connection to another was lost."""
    return outcome.exception is not None and _CONSEQUENCE.search(outcome.message or "") is not None


def waits_for_others(stack: str) -> bool:
    """Return whether the innermost frame of a stack, as faulthandler writes it, is a collective."""
    frame = last_frame(stack)
    return frame is not None and ("/torch/distributed/" in frame[0] or frame[0].endswith("/parallel/communicator.py"))


def last_frame(stack: str) -> tuple[str, str, str] | None:
    """Return file, line and function of the innermost frame of a stack as faulthandler writes it."""
    found = re.search(r'File "(.*)", line (\d+) in (.*)', stack)
    return (found[1], found[2], found[3]) if found else None


def describe_exit(exit_code: int) -> str:
    """Return how a process without a word ended: "was killed by SIGKILL", "exited with status 3 and no result"."""
    if exit_code >= 0:
        return f"exited with status {exit_code} and no result"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


def describe_hang(stack: str, deadline_s: float) -> str:
    """Return where a process was at the deadline."""
    frame = last_frame(stack)
    seen = f"in {frame[2]} ({frame[0]}:{frame[1]})" if frame else "before its function began"
    return f"had no result within {deadline_s:g} s, last seen {seen}"
