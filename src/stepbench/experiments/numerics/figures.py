"""The sums' relative errors over the number of terms."""

from __future__ import annotations

from matplotlib.figure import Figure

from stepbench.experiments.numerics import rounding
from stepbench.experiments.numerics.cases import WAYS, find_case
from stepbench.experiments.numerics.cell import TERM
from stepbench.reporting import figures
from stepbench.reporting.frames import Results


def accumulation(results: Results) -> Figure:
    """Draw the sums' relative errors over the number of terms."""
    group = find_case(results, "accumulation")
    if group is None or not group.records:
        return figures.nothing("The accumulation has not been measured.")
    details = group.records[0].details
    described = f"Sums of the term {TERM}; the exact sum is taken in float64."
    return rounding.errors(details, WAYS, described)
