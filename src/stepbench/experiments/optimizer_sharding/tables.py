"""The bytes of each variant, its time, and what stands beside torch's own."""

from __future__ import annotations

from stepbench.experiments.optimizer_sharding.bars import BARS
from stepbench.reporting import paired_tables, sharding_tables
from stepbench.reporting.frames import Results
from stepbench.reporting.tables import Table


def memory(results: Results) -> Table:
    """Return the bytes of each variant, predicted and measured."""
    return sharding_tables.memory(results)


def time(results: Results) -> Table:
    """Return the time of each variant."""
    return sharding_tables.time(results)


def beside(results: Results) -> Table:
    """Return what stands beside torch's own."""
    return paired_tables.beside(results, BARS)
