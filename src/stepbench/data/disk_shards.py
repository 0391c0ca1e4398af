"""Shards that are read from disk sample by sample, each time they are asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stepbench.data.shards import DTYPE, ITEM_BYTES, ShardError, ShardSet

if TYPE_CHECKING:
    import numpy as np


class DiskShard:
    """A shard of which each sample is read when it is asked for.

    Not a memory map: pages that are mapped stay in memory, so that only the first epoch would read the disk.

    Args:
        file: what `check` has returned.
        samples: how many it holds.
        sample_tokens: tokens of each.
    """

    def __init__(self, file: Path, samples: int, sample_tokens: int) -> None:
        self._file, self._samples, self._bytes = file, samples, sample_tokens * ITEM_BYTES
        self._descriptor: int | None = None  # of the process that reads: opened where it is first needed

    def __len__(self) -> int:
        """Return how many samples it holds."""
        return self._samples

    def __getitem__(self, row: int) -> np.ndarray:
        """Return a sample, uint16 `[2·context + 1]`.

        Raises:
            ShardError: the file is shorter than it was.
        """
        import numpy as np

        if self._descriptor is None:
            self._descriptor = os.open(self._file, os.O_RDONLY)
        found = os.pread(self._descriptor, self._bytes, row * self._bytes)
        if len(found) != self._bytes:
            raise ShardError(f"{self._file}: a shard must hold sample {row}, but it ends before")
        return np.frombuffer(found, DTYPE)


def on_disk(definition: ShardSet, paths: list[Path]) -> list[DiskShard]:
    """Return all shards of the files that `check` has returned."""
    counts = zip(paths, definition.shard_samples, strict=True)
    return [DiskShard(file, samples, definition.sample_tokens) for file, samples in counts]


def forget(paths: list[Path]) -> bool:
    """Ask the kernel to forget the files' pages, so that an epoch reads the disk; False where it takes no wish."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in paths:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True
