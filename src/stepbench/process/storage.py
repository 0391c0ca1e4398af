"""Whether results can be written, asked before anything is measured; and what is said when the disk refuses later."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


class StorageError(Exception):
    """What is to be made cannot be written; one line for each folder."""


def check_writable(files: Iterable[Path]) -> None:
    """Refuse files that cannot be written, before anything was spent on them.

    Raises:
        StorageError: one line for each folder in which nothing can be made.
    """
    folders = dict.fromkeys(_standing(file.parent) for file in files)
    if wrong := [_refusal(folder) for folder in folders if not _takes_files(folder)]:
        raise StorageError("\n".join(wrong))


def told(error: OSError) -> str | None:
    """Return one sentence for a file that could not be written, or None for what is no matter of storage."""
    if error.errno in _FULL:
        rest = "free some, and the same command goes on from here"
        return f"{error.filename}: there must be space to write it, got no space ({error.strerror}); {rest}"
    return f"{error.filename}: must be writable, got {error.strerror}" if error.errno in _CLOSED else None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file by way of a temporary one beside it, fsync and rename.

    Raises:
        OSError: the file system refuses; it names `path`.
    """
    try:
        _write_atomically(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)  # noqa: PTH105 (the atomic rename is the point)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _standing(folder: Path) -> Path:
    """Return the folder, or what stands where the nearest of those above it would have to be."""
    return next(each for each in (folder, *folder.parents) if os.path.lexists(each))


def _takes_files(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _refusal(folder: Path) -> str:
    if not folder.is_dir():
        found = "something else in its place"
    else:
        found = "a read-only file system" if os.statvfs(folder).f_flag & os.ST_RDONLY else "no permission"
    return f"{folder}: must be a folder that can be written to, got {found}; nothing was measured"
