"""The tables of optimizer sharding: bytes, time, and the comparison with torch's own."""

from __future__ import annotations

from stepbench.experiments.optimizer_sharding.cell import PARTNERS
from stepbench.reporting import paired, sharding_tables
from stepbench.reporting.frames import Results
from stepbench.reporting.paired import Target, Targets
from stepbench.reporting.tables import Table

TARGETS: Targets = {"sharded_broadcast": Target(PARTNERS["sharded_broadcast"], 1.0, memory_ratio=1.0)}


def memory(results: Results) -> Table:
    """Return the bytes of each variant, predicted and measured."""
    return sharding_tables.memory(results)


def time(results: Results) -> Table:
    """Return the time of each variant."""
    return sharding_tables.time(results)


def beside(results: Results) -> Table:
    """Return the comparison with torch's own."""
    return paired.beside(results, TARGETS)
