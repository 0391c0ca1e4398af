"""Whether processes that a test has caused are still there."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence

import psutil

PROMISED_S = 2.0


def alive(pid: int) -> bool:
    """Return whether a process, or a thread of it, lives. Nobody may be there to reap it, so a zombie does not."""
    if not hasattr(os, "pidfd_open"):
        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        return not select.select([descriptor], [], [], 0)[0]
    finally:
        os.close(descriptor)


def gone(pids: Sequence[int], within_s: float = PROMISED_S) -> bool:
    """Return whether all of these processes end within a time; 0 asks how it is now."""
    assert within_s >= 0
    end = time.monotonic() + within_s
    while any(map(alive, pids)):
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
    return True
