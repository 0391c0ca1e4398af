"""The figure of the machine's peaks."""

from __future__ import annotations

from matplotlib.figure import Figure

from stepbench.reporting import roofline as drawn
from stepbench.reporting.frames import Results


def roofline(results: Results) -> Figure:
    """Draw the roofline with the measured products."""
    described = "Solid: measured; dashed: the vendor's figures where they are known."
    return drawn.draw(results.peaks, drawn.products(results.groups()), described)
