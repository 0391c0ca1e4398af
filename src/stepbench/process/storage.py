"""Files that appear whole or not at all; whether they can be written, and what to tell the user where they cannot."""

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
    """A folder cannot be written to; one line for each."""


def check_writable(files: Iterable[Path]) -> None:
    """Check that files can be written, before time is spent on what goes into them.

    Raises:
        StorageError: one line for each folder that cannot be written to.
    """
    folders = dict.fromkeys(_standing(file.parent) for file in files)
    if wrong := [_refusal(folder) for folder in folders if not _takes_files(folder)]:
        raise StorageError("\n".join(wrong))


def told(error: OSError) -> str | None:
    """Return what to tell the user of a file that could not be written, or None for an error of another kind."""
    said = f"{error.filename}: {(error.strerror or '').lower()}"
    if error.errno in _FULL:
        return f"{said}; free some space and rerun the same command to resume"
    return f"{said}; it cannot be written" if error.errno in _CLOSED else None


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
        found = "it is not a folder"
    else:
        found = "the file system is read-only" if os.statvfs(folder).f_flag & os.ST_RDONLY else "permission denied"
    return f"{folder}: cannot be written to ({found}); nothing was measured"
