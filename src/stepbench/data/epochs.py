"""An epoch over shards: shuffled, split over ranks without overlap, read ahead by worker processes.

Shuffling a data set that is larger than memory sample by sample would read the disk at random. So blocks of samples
that lie one after the other are shuffled, and samples inside of a window of some blocks: what a batch needs lies near
each other, and no batch is like one of the epoch before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from stepbench.data.shards import ShardError
from stepbench.process import lifeline

if TYPE_CHECKING:
    from stepbench.data.disk_shards import DiskShard
    from stepbench.data.shards import Samples

BLOCK_SAMPLES = 512
WINDOW_BLOCKS = 64
PREFETCHED = 4  # batches that each worker has ready


def order(samples: int, *, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Yield the indices of all samples, each once, a window at a time; another epoch gives another order."""
    random = np.random.default_rng([seed, epoch])
    blocks = random.permutation(-(-samples // BLOCK_SAMPLES))
    for start in range(0, len(blocks), WINDOW_BLOCKS):
        chosen = blocks[start : start + WINDOW_BLOCKS]
        indices = (chosen[:, None] * BLOCK_SAMPLES + np.arange(BLOCK_SAMPLES)).ravel()
        yield random.permutation(indices[indices < samples])


class Batches(Sampler[list[int]]):
    """The indices of one rank's batches in an epoch; all ranks have equally many, and what is left over is left out.

    Args:
        samples: of the data set.
        batch: samples of one rank's batch.
        rank, ranks: which of how many.
        seed: of the order.
        steps: how many batches make an epoch, or None for all.

    Raises:
        ValueError: the data set has not enough samples.
    """

    def __init__(self, samples: int, *, batch: int, rank: int, ranks: int, seed: int, steps: int | None = None) -> None:
        whole = samples // (batch * ranks)
        least = 1 if steps is None else steps
        if whole < least:
            raise ValueError(
                f"the data set must hold {least * batch * ranks} samples for {least} steps of {ranks} ranks with "
                f"{batch} each, got {samples}"
            )
        self.epoch = 0
        self._samples, self._batch, self._rank, self._ranks, self._seed = samples, batch, rank, ranks, seed
        self._steps = whole if steps is None else steps

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of this epoch: of each global batch this rank's slice."""
        together, left = self._batch * self._ranks, np.empty(0, dtype=np.int64)
        mine = slice(self._rank * self._batch, (self._rank + 1) * self._batch)
        done = 0
        for window in order(self._samples, seed=self._seed, epoch=self.epoch):
            left = np.concatenate((left, window))
            while len(left) >= together and done < self._steps:
                yield left[:together][mine].tolist()
                left, done = left[together:], done + 1
            if done == self._steps:
                return


class Pairs(Dataset[Any]):
    """Samples of all shards, a batch of them at a time, as (source, target input, target).

    Args:
        shards: rows of 2·context + 1 tokens, as many in each as in the first but the last.
        context: tokens of a source.
    """

    def __init__(self, shards: Sequence[Samples | DiskShard], *, context: int) -> None:
        self._shards, self._context, self._full = shards, context, len(shards[0])

    def __len__(self) -> int:
        """Return how many samples there are."""
        return sum(len(shard) for shard in self._shards)

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return int64 `[B, context]` each: sources, targets shifted by one, targets."""
        rows = np.stack([self._shards[index // self._full][index % self._full] for index in indices])
        source, target = rows[:, : self._context], rows[:, self._context :]
        parts = (source, target[:, :-1], target[:, 1:])
        first, second, third = (torch.from_numpy(np.ascontiguousarray(part, dtype=np.int64)) for part in parts)
        return first, second, third


def loader(pairs: Pairs, batches: Batches, *, workers: int, pinned: bool) -> DataLoader[Any]:
    """Return a loader whose workers read ahead, and end with this process; set `batches.epoch` before each epoch.

    `read` yields its batches: one that could not be read comes as the exception.

    Args:
        pairs: the samples.
        batches: which of them in which order.
        workers: processes that read; 0 reads in this process when a batch is asked for.
        pinned: whether batches are put into page-locked memory, from where a GPU copies while it computes.
    """
    parent = os.getpid()
    return DataLoader(
        _Reader(pairs),
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pinned,
        collate_fn=_as_it_is,
        prefetch_factor=PREFETCHED if workers else None,
        persistent_workers=workers > 0,
        # torch's own workers look for their parent every 5 s.
        worker_init_fn=lambda _: lifeline.die_with_parent(parent),
        multiprocessing_context="fork" if workers else None,
    )


def read(load: DataLoader[Any]) -> Iterator[Any]:
    """Yield the batches of an epoch.

    Raises:
        ShardError: a shard is missing, cut or cannot be read.
    """
    for batch in load:
        if isinstance(batch, Exception):
            raise ShardError(str(batch))
        yield batch


class _Reader(Dataset[Any]):
    """Reads batches of pairs; what goes wrong is returned, since torch would make a traceback's text of it."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitems__(self, indices: Sequence[int]) -> Any:
        try:
            return self._pairs.__getitems__(indices)
        except (ShardError, OSError) as error:
            return error


def _as_it_is(batch: Any) -> Any:
    """Leave a batch alone: `Pairs.__getitems__` has made it whole."""
    return batch
