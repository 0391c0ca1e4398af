"""Which sum is off by how much and why, and which tensors autocast leaves in float32."""

from __future__ import annotations

from stepbench.experiments.numerics import rounding
from stepbench.experiments.numerics.cases import CASES, TENSORS, WAYS, find_case
from stepbench.experiments.numerics.cell import TERM, TERMS
from stepbench.reporting.frames import Results


def find(results: Results) -> list[str]:
    """Return which sum is off by how much and why, and which tensors autocast leaves in float32."""
    found = []
    group = find_case(results, "accumulation")
    if group is not None and group.records:
        found += rounding.sums(group.records[0].scalars, WAYS, TERM, TERMS)
    for case in CASES:
        group = find_case(results, case)
        if group is not None and group.records:
            found += rounding.dtypes(group.records[0].scalars, TENSORS, case.removeprefix("autocast_"))
    return found
