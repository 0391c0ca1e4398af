"""Findings about optimizer sharding."""

from __future__ import annotations

from stepbench.experiments.optimizer_sharding.tables import TARGETS
from stepbench.reporting import paired, sharding_findings
from stepbench.reporting.findings import Finding
from stepbench.reporting.frames import Results


def find(results: Results) -> list[Finding]:
    """Return what each variant saves and costs, and whether the targets are met."""
    return [*sharding_findings.find(results), *paired.find(results, TARGETS)]
