"""Locks that the kernel releases when the process that holds them ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from stepbench.process import lifeline
from stepbench.process.storage import StorageError

_WRITTEN_WITHIN_S = 1.0
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # Lustre without `-o flock`, some FUSE and NFS mounts
_LONGEST_BYTES = 200


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock, and since when."""

    process: int
    since: str


class BusyError(RuntimeError):
    """Another process holds what this one needs; the message names it."""


def hold(path: Path, what: str, *, wait: bool = False) -> int:
    """Take the lock at `path` and return its descriptor; the kernel releases it when the process ends.

    Args:
        path: the lock's file, which is never removed.
        what: what it stands for, such as "this folder", for the message.
        wait: wait for the holder instead of refusing.

    Raises:
        BusyError: another process holds it.
        stepbench.process.storage.StorageError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder_ = _holder_of(descriptor)
        os.close(descriptor)
        who = "another run" if holder_ is None else f"another run (process {holder_.process}, since {holder_.since})"
        raise BusyError(f"{who} is using {what}; wait for it or stop it") from None
    except OSError as error:
        os.close(descriptor)
        if error.errno not in _WITHOUT_LOCKS:
            raise
        why = f"{path.parent}: its file system has no locks ({(error.strerror or '').lower()})"
        raise StorageError(f"{why}, without which two runs would disturb each other; use another folder") from None
    os.ftruncate(descriptor, 0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.pwrite(descriptor, json.dumps({"process": os.getpid(), "since": since}).encode(), 0)
    return descriptor


def holder(path: Path) -> int | None:
    """Return the process that holds the lock at `path`, or has held it last; None where there is no lock."""
    try:
        found = _parse(path.read_bytes()[:_LONGEST_BYTES])
    except FileNotFoundError:
        return None
    return None if found is None else found.process


def _holder_of(descriptor: int) -> Holder | None:
    """Return what the holder has written; one that has taken the lock this moment writes it in the next."""
    end = time.monotonic() + _WRITTEN_WITHIN_S
    while True:
        found = _parse(os.pread(descriptor, _LONGEST_BYTES, 0))
        if found is not None and lifeline.alive(found.process):
            return found
        if time.monotonic() >= end:
            return None
        time.sleep(0.01)


def _parse(text: bytes) -> Holder | None:
    """Return what a lock's file says of its holder; None for anything else, which anybody may have written."""
    try:
        found = json.loads(text)
        process, since = found["process"], found["since"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return Holder(process, since) if type(process) is int and isinstance(since, str) and since.isprintable() else None
