"""Findings about fully sharded data parallelism."""

from __future__ import annotations

from stepbench.experiments.fsdp.tables import TARGETS
from stepbench.reporting import paired, sharding_findings
from stepbench.reporting.findings import Finding
from stepbench.reporting.frames import Results


def find(results: Results) -> list[Finding]:
    """Return what each variant saves and costs, and whether the targets are met."""
    return [*sharding_findings.find(results), *paired.find(results, TARGETS)]
