"""Ctrl-C and SIGTERM end a run within three seconds, and it prints how to resume.

Snakemake itself would wait for its running jobs, which may take as long as a cell does; users and batch systems wait
less. So the run sends SIGTERM to every job, and each job ends its measuring process.
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

from stepbench import terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LIMIT_S = 2.5  # then every child is killed; 3 s are promised

_exit_code: int | None = None


def end_run_on_signals() -> None:
    """Have Ctrl-C and SIGTERM end this process and its children; to be called in the main thread."""
    _handle(_end_run)


def leave_on_signals() -> None:
    """Have Ctrl-C and SIGTERM end this process through `sys.exit`, which cleans up; its run prints the message."""
    _handle(_leave)


def leave_if_ended() -> None:
    """Exit with the signal's exit status if there was one; Snakemake itself would exit with 1."""
    if _exit_code is not None:
        sys.exit(_exit_code)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for sign in SIGNALS:
        if signal.getsignal(sign) is not signal.SIG_IGN:  # `nohup`, or a shell's job in the background
            signal.signal(sign, handler)


def _ignore_signals() -> None:
    """Ignore further signals: a terminal's Ctrl-C reaches a job twice, directly and through its run.

    Not with SIG_IGN: where both have arrived before Python calls the first handler, it prints a traceback for the
    second ("ignored due to race condition") in the middle of the clean-up.
    """
    for sign in SIGNALS:
        signal.signal(sign, _do_nothing)


def _do_nothing(_sign: int, _frame: FrameType | None) -> None:
    """Let the end go on."""


def _leave(sign: int, _frame: FrameType | None) -> None:
    _ignore_signals()
    sys.exit(128 + sign)


def _end_run(sign: int, _frame: FrameType | None) -> None:
    global _exit_code
    _exit_code = 128 + sign
    _ignore_signals()
    atexit.register(_print_how_to_resume, sign)
    limit = threading.Timer(_LIMIT_S, _kill_children, [sign])
    limit.daemon = True
    limit.start()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            # A measuring process has a session of its own; its job ends it, and would take its death for a result.
            if os.getsid(child.pid) == os.getsid(0):
                child.terminate()
    sys.exit(_exit_code)


def _kill_children(sign: int) -> None:
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    _print_how_to_resume(sign)
    os._exit(128 + sign)


def _print_how_to_resume(sign: int) -> None:
    told = f"stopped by {signal.Signals(sign).name}; finished cells are kept, rerun the same command to resume"
    terminal.say(told)
