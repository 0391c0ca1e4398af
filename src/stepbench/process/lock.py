"""Locks that end with the process that holds them, whichever way it ends."""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path

from stepbench.process import lifeline

_WRITTEN_WITHIN_S = 1.0


class BusyError(RuntimeError):
    """Another process holds what this one needs; the message names it."""


def hold(path: Path, what: str, *, wait: bool = False) -> int:
    """Take the lock at `path` and return its descriptor; the kernel gives it back when the process ends.

    Args:
        path: the lock's file, which is never removed.
        what: what it stands for, for the message.
        wait: wait for the holder instead of refusing.

    Raises:
        BusyError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held_by = _name_of_holder(descriptor)
        os.close(descriptor)
        raise BusyError(f"{what} must be free to run in, but {held_by} holds it; wait for it or stop it") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} (since {time.strftime('%Y-%m-%d %H:%M:%S')})".encode(), 0)
    return descriptor


def holder(path: Path) -> int | None:
    """Return the process that holds the lock at `path`, or has held it last; None where there is no lock."""
    try:
        return _process_in(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return None


def _name_of_holder(descriptor: int) -> str:
    """Return what the holder has written; one that has taken the lock this moment writes it in the next."""
    end = time.monotonic() + _WRITTEN_WITHIN_S
    while True:
        text = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        process = _process_in(text)
        if (process is not None and lifeline.alive(process)) or time.monotonic() >= end:
            return text or "an unknown process"
        time.sleep(0.01)


def _process_in(text: str) -> int | None:
    found = re.match(r"process (\d+)", text)
    return int(found.group(1)) if found else None
