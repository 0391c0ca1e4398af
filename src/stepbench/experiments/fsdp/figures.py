"""The figures of fully sharded data parallelism: bytes by category, and a step over time."""

from __future__ import annotations

from matplotlib.figure import Figure

from stepbench.reporting import sharding_figures, timelines
from stepbench.reporting.frames import Results


def memory(results: Results) -> Figure:
    """Draw the bytes of each variant by category."""
    return sharding_figures.memory(results)


def timeline(results: Results) -> Figure:
    """Draw a step of each variant over time."""
    return timelines.timeline(results, "variant")
