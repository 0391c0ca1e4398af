"""Which data set a cell reads."""

from __future__ import annotations

from collections.abc import Mapping

from stepbench.data.shards import ShardSet
from stepbench.experiments.encoder_decoder.cell import Cell


def whole(cell: Cell, vocabulary: int, seed: int) -> ShardSet:
    """Return the data set that a cell is about, in memory or on disk.

    Raises:
        ValueError: there is no such data set.
    """
    return ShardSet(cell.megabytes, cell.context, vocabulary, seed)


def find(cell: Cell, preset: Mapping[str, int], seed: int) -> ShardSet | None:
    """Return the data set that a cell reads from disk."""
    return whole(cell, preset["vocabulary"], seed) if cell.data == "disk" else None
