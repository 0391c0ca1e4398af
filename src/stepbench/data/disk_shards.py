"""Shards on disk, from which each sample is read when it is requested."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stepbench.data.shards import DTYPE, ITEM_BYTES, ShardError, ShardSet

if TYPE_CHECKING:
    import numpy as np


class DiskShard:
    """A shard on disk; indexing it reads one sample.

    It is not a memory map: mapped pages stay in memory, so only the first epoch would read the disk.

    Args:
        file: a path that `shards.check` returned.
        samples: the number of samples in it.
        sample_tokens: tokens per sample.
    """

    def __init__(self, file: Path, samples: int, sample_tokens: int) -> None:
        self._file, self._samples, self._bytes = file, samples, sample_tokens * ITEM_BYTES
        self._descriptor: int | None = None  # opened at the first read, in the process that reads

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._samples

    def __getitem__(self, row: int) -> np.ndarray:
        """Return a sample, uint16 `[2·context + 1]`.

        Raises:
            ShardError: the file ends before this sample.
        """
        import numpy as np

        if self._descriptor is None:
            self._descriptor = os.open(self._file, os.O_RDONLY)
        found = os.pread(self._descriptor, self._bytes, row * self._bytes)
        if len(found) != self._bytes:
            raise ShardError(f"{self._file}: the shard ends before sample {row}")
        return np.frombuffer(found, DTYPE)


def on_disk(definition: ShardSet, paths: list[Path]) -> list[DiskShard]:
    """Return a `DiskShard` for each path that `shards.check` returned."""
    counts = zip(paths, definition.shard_samples, strict=True)
    return [DiskShard(file, samples, definition.sample_tokens) for file, samples in counts]


def forget(paths: list[Path]) -> bool:
    """Drop the files' pages from the kernel's cache, so that an epoch reads the disk; False if not supported."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in paths:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True
