"""The ways in which a measurement fails, as values; a record holds the kind, and a sentence beside it.

An exception of this project that is a failure of a kind of its own carries it: `kind`, one of `KINDS`; and `rank`,
where a rank is to blame.
"""

from __future__ import annotations

from typing import Any

from stepbench.measure.out_of_memory import is_out_of_memory

KINDS = {
    "wrong_result": "A check found that what was computed is wrong.",
    "predicted_oom": "It was not started, because it is predicted not to fit into memory.",
    "oom": "Memory ran out: of an allocator, of the host, or until the kernel's OOM killer ended the process.",
    "deadline": "There was no result within the time limit.",
    "killed": "The measuring process was killed by a signal.",
    "no_result": "The measuring process exited without a result.",
    "unsupported": "The device or the software cannot do what the cell asks for.",
    "own_code": "A model or a kernel of the user's own cannot be used.",
    "exception": "The measurement raised an exception of no other kind.",
    "rank_failed": "A rank raised, was killed or exited without a result; `details.rank` says which.",
    "rank_deadline": "A rank gave no result within the time limit; `details.rank` says which.",
    "source_changed": "The result was discarded, because source or configuration changed while it was measured.",
    "unrecordable": "What was measured is not what a record can hold, such as a time that is negative.",
    "landed_elsewhere": "It was measured on another machine than the configuration describes.",
}
STATUSES = {
    "predicted_oom": "oom",
    "oom": "oom",
    "deadline": "timeout",
    "rank_deadline": "timeout",
    "unsupported": "unsupported",
    "own_code": "unsupported",  # until its file changes
}  # every other kind is an `error`
WITHOUT_TRACEBACK = ("predicted_oom", "unsupported")  # raised on purpose, and the sentence says all


def failure(kind: str, reason: str, **more: Any) -> dict[str, Any]:
    """Return the fields of a record that say how a measurement failed."""
    return {"status": STATUSES.get(kind, "error"), "kind": kind, "reason": reason, **more}


def kind_of(error: BaseException) -> str:
    """Return the kind of failure that an exception is."""
    kind = _own_kind(error)
    if kind in (None, "own_code") and is_out_of_memory(error):  # code of the user's own may run out of memory too
        return "oom"
    if kind is not None:
        return kind
    if isinstance(error, TimeoutError):
        return "deadline"
    # A check raises it; Python itself raises one of its subclasses, such as ZeroDivisionError.
    return "wrong_result" if type(error) is ArithmeticError else "exception"


def rank_of(error: BaseException) -> int | None:
    """Return the rank that is to blame for an exception, or None."""
    rank = getattr(error, "rank", None)
    return rank if _own_kind(error) is not None and isinstance(rank, int) and rank >= 0 else None


def sentence(error: BaseException) -> str:
    """Return what an exception says, as one line: the message of one of ours, that of another after its type."""
    is_ours = _own_kind(error) is not None or type(error) is TimeoutError
    return first_line(error) if is_ours and first_line(error) else with_type(error)


def with_type(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    message = first_line(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message that is not blank, or an empty text."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def _own_kind(error: BaseException) -> str | None:
    kind = getattr(error, "kind", None)
    return kind if isinstance(kind, str) and kind in KINDS else None
