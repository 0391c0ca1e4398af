"""An epoch over shards: shuffled, split over ranks without overlap, read ahead by worker processes.

Shuffling single samples of a data set that is larger than memory would read the disk at random. So blocks of
consecutive samples are shuffled, and then the samples within a window of some blocks. The samples of a batch are close
together on disk, and each epoch has other batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from stepbench.data.shards import ShardError
from stepbench.process import lifeline

if TYPE_CHECKING:
    from stepbench.data.disk_shards import DiskShard
    from stepbench.data.shards import Samples

BLOCK_SAMPLES = 512
WINDOW_BLOCKS = 64
PREFETCHED = 4  # batches that each worker reads ahead


def order(samples: int, *, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Yield the indices of all samples, each once, one window at a time; each epoch has its own order.

    Yields:
        int64 arrays `[at most WINDOW_BLOCKS · BLOCK_SAMPLES]`.
    """
    random = np.random.default_rng([seed, epoch])
    blocks = random.permutation(-(-samples // BLOCK_SAMPLES))
    for start in range(0, len(blocks), WINDOW_BLOCKS):
        chosen = blocks[start : start + WINDOW_BLOCKS]
        indices = (chosen[:, None] * BLOCK_SAMPLES + np.arange(BLOCK_SAMPLES)).ravel()
        yield random.permutation(indices[indices < samples])


class Batches(Sampler[list[int]]):
    """The indices of one rank's batches in an epoch.

    All ranks have the same number of batches; remaining samples are dropped.

    Args:
        samples: samples in the data set.
        batch: samples per batch and rank.
        rank: this rank.
        ranks: the number of ranks.
        seed: seed of the order.
        steps: batches per epoch, or None for as many as the data set has.

    Raises:
        ValueError: the data set has too few samples.
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
        """Return the number of batches per epoch."""
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of this epoch: this rank's slice of each global batch."""
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
    """The samples of all shards, read a batch at a time as (source, target input, target).

    Args:
        shards: rows of 2·context + 1 tokens; all shards but the last have the same number of rows.
        context: tokens per source.
    """

    def __init__(self, shards: Sequence[Samples | DiskShard], *, context: int) -> None:
        self._shards, self._context, self._full = shards, context, len(shards[0])

    def __len__(self) -> int:
        """Return the number of samples."""
        return sum(len(shard) for shard in self._shards)

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return sources, target inputs (targets shifted by one) and targets, each int64 `[B, context]`."""
        rows = np.stack([self._shards[index // self._full][index % self._full] for index in indices])
        source, target = rows[:, : self._context], rows[:, self._context :]
        parts = (source, target[:, :-1], target[:, 1:])
        first, second, third = (torch.from_numpy(np.ascontiguousarray(part, dtype=np.int64)) for part in parts)
        return first, second, third


def loader(pairs: Pairs, batches: Batches, *, workers: int, pinned: bool) -> DataLoader[Any]:
    """Return a loader whose workers read ahead and end with this process; set `batches.epoch` before each epoch.

    Iterate over it with `read`: a batch that could not be read is passed on as the exception.

    Args:
        pairs: the samples.
        batches: which samples to read, in which order.
        workers: number of reading processes; 0 reads in this process when a batch is requested.
        pinned: whether batches are placed in page-locked memory, which a GPU can copy from while it computes.
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
        # torch's own workers check for their parent only every 5 s.
        worker_init_fn=lambda _: lifeline.die_with_parent(parent),
        multiprocessing_context="fork" if workers else None,
    )


def read(load: DataLoader[Any]) -> Iterator[Any]:
    """Yield the batches of an epoch.

    Raises:
        ShardError: a shard is missing, truncated or unreadable, or shared memory is too small for the batches.
    """
    for batch in load:
        if isinstance(batch, Exception):
            raise ShardError(str(batch))
        yield batch


class _Reader(Dataset[Any]):
    """Reads batches of pairs; returns exceptions, because torch would turn a raised one into a traceback's text.

    A worker puts its batches into shared memory here. torch would do it in a thread of the worker that prints an error
    and goes on, and who waits for the batch would wait for ever.
    """

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitems__(self, indices: Sequence[int]) -> Any:
        try:
            parts = self._pairs.__getitems__(indices)
        except (ShardError, OSError) as error:
            return error
        if (worker := get_worker_info()) is not None:
            try:
                for part in parts:
                    part.share_memory_()
            except RuntimeError as error:
                workers = worker.num_workers
                ahead_bytes = workers * PREFETCHED * sum(part.nbytes for part in parts)
                return ShardError(
                    f"shared memory (/dev/shm) must hold the batches that {workers} workers read ahead, {ahead_bytes} "
                    "bytes a rank; make it larger (docker run --shm-size 1g) or read with fewer workers: "
                    f"{str(error).splitlines()[0]}"
                )
        return parts


def _as_it_is(batch: Any) -> Any:
    """Return the batch unchanged: `Pairs.__getitems__` has already collated it."""
    return batch
