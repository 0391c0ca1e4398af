"""What each variant saves and costs, and whether the bar is met."""

from __future__ import annotations

from stepbench.experiments.fsdp.bars import BARS
from stepbench.reporting import paired_tables, sharding_findings
from stepbench.reporting.frames import Results


def find(results: Results) -> list[str]:
    """Say what each variant saves and costs, and whether the bar is met."""
    return [*sharding_findings.find(results), *paired_tables.find(results, BARS)]
