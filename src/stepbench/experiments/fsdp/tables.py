"""The tables of fully sharded data parallelism: bytes, time, and the comparison with torch's own."""

from __future__ import annotations

from stepbench.experiments.fsdp.cell import PARTNERS
from stepbench.reporting import paired, sharding_tables
from stepbench.reporting.frames import Results
from stepbench.reporting.paired import Target, Targets
from stepbench.reporting.tables import Table

TARGETS: Targets = {"fsdp": Target(PARTNERS["fsdp"], 1.1, memory_ratio=1.05)}


def memory(results: Results) -> Table:
    """Return the bytes of each variant, predicted and measured."""
    return sharding_tables.memory(results)


def time(results: Results) -> Table:
    """Return the time of each variant."""
    return sharding_tables.time(results)


def beside(results: Results) -> Table:
    """Return the comparison with torch's own."""
    return paired.beside(results, TARGETS)
