"""Ctrl-C and SIGTERM end a run within three seconds, and it says how to go on.

By itself Snakemake waits for its running jobs, which is as long as a cell may take; a terminal's user and a batch
system whose time is over wait less. What the run has started is told to end, and ends what it has started in its turn.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LIMIT_S = 2.5  # whatever Snakemake waits for then; 3 s are promised

_exit_code: int | None = None


def end_run_on_signals() -> None:
    """Have Ctrl-C and SIGTERM end this process and what it has started; to be called in the main thread."""
    _handle(_end_run)


def leave_on_signals() -> None:
    """Have Ctrl-C and SIGTERM end this process by the way that cleans up; whoever started it does the telling."""
    _handle(_leave)


def leave_if_ended() -> None:
    """End with the signal's exit code if there was one; Snakemake itself would end with 1."""
    if _exit_code is not None:
        sys.exit(_exit_code)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for sign in SIGNALS:
        if signal.getsignal(sign) is not signal.SIG_IGN:  # `nohup`, or a shell's job in the background
            signal.signal(sign, handler)


def _heed_no_more() -> None:
    """Let nothing disturb the end: a terminal's Ctrl-C reaches a job twice, by itself and through its run."""
    for sign in SIGNALS:
        signal.signal(sign, signal.SIG_IGN)


def _leave(sign: int, _frame: FrameType | None) -> None:
    _heed_no_more()
    sys.exit(128 + sign)


def _end_run(sign: int, _frame: FrameType | None) -> None:
    global _exit_code
    _exit_code = 128 + sign
    _heed_no_more()
    atexit.register(_tell, sign)
    limit = threading.Timer(_LIMIT_S, _insist, [sign])
    limit.daemon = True
    limit.start()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            # A measuring process has a session of its own; its job ends it, and would take its death for a result.
            if os.getsid(child.pid) == os.getsid(0):
                child.terminate()
    sys.exit(_exit_code)


def _insist(sign: int) -> None:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    _tell(sign)
    os._exit(128 + sign)


def _tell(sign: int) -> None:
    told = f"stopped by {signal.Signals(sign).name}; finished cells are kept, rerun the same command to resume"
    print(f"stepbench: {told}", file=sys.stderr, flush=True)  # noqa: T201
