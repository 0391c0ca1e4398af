"""The bytes of each variant by category, and a step of each over time."""

from __future__ import annotations

from matplotlib.figure import Figure

from stepbench.reporting import sharding_figures, timeline_figures
from stepbench.reporting.frames import Results


def memory(results: Results) -> Figure:
    """Draw the bytes of each variant by category."""
    return sharding_figures.memory(results)


def lanes(results: Results) -> Figure:
    """Draw a step of each variant over time."""
    return timeline_figures.lanes(results, "variant")
