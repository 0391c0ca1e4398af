"""Whether processes that a test has caused are still there."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil

PROMISED_S = 2.0


def alive(pid: int) -> bool:
    """Return whether a process lives; nobody may be there to reap it, so a zombie does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def gone(pids: Sequence[int], within_s: float = PROMISED_S) -> bool:
    """Return whether all of these processes end within a time; 0 asks how it is now."""
    end = time.monotonic() + within_s
    while any(map(alive, pids)):
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
    return True
