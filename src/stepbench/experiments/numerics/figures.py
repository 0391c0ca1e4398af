"""The figure of the sums' relative errors over the number of terms."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stepbench.experiments.numerics.cases import WAYS
from stepbench.experiments.numerics.cell import TERM
from stepbench.reporting import figures
from stepbench.reporting.frames import Results

_LINES: tuple[Any, ...] = ("-", "-", (0, (6, 3)), (0, (1, 2.5)))  # the last two coincide


@figures.styled
def accumulation(results: Results) -> Figure:
    """Draw the relative error of each way to add over the number of terms."""
    group = results.group(case="accumulation")
    if group is None or not group.records:
        return figures.nothing("The accumulation has not been measured.")
    details = group.records[0].details
    figure = figures.new(3.9, f"Sums of the term {TERM}; the exact sum is taken in float64.")
    axes = figure.subplots()
    terms, exact = np.array(details["terms"]), np.array(details["sums_fp64"])
    styles = zip(WAYS.items(), figures.PALETTE, figures.MARKERS, _LINES, strict=False)
    for index, ((way, words), color, marker, line) in enumerate(styles):
        error = np.abs(np.array(details["sums"][way]) / exact - 1)
        shown = np.where(error > 0, error, np.nan)  # no error at all has no place on a logarithmic axis
        every = (4 + 3 * index, 24)
        axes.plot(terms, shown, color=color, linestyle=line, marker=marker, markevery=every, label=words)
    for dtype, digits in (("fp16", 11), ("fp32", 24)):
        axes.axhline(2.0**-digits, color=figures.MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        style: dict[str, Any] = {"fontsize": 8.5, "color": figures.MUTED, "va": "center", "annotation_clip": False}
        at = (terms[-1], 2.0**-digits)
        axes.annotate(f"unit roundoff\nof {dtype}", at, xytext=(6, 0), textcoords="offset points", **style)
    axes.set_yscale("log")
    # A sum that happens to be right for a moment, where its error changes sign, would stretch the axis by many decades.
    axes.set_ylim(bottom=2.0**-26)
    axes.set_xlabel("number of terms")
    axes.set_ylabel("relative error of the sum")
    axes.set_xlim(0, terms[-1])
    figures.legend_above(figure, 2)
    return figure
