"""The figure of warm-up: each sample over its step."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stepbench.experiments.warmup.cell import BATCH, CONTEXT
from stepbench.reporting import drawing, figures, units
from stepbench.reporting.figures import NO_NUMBERS
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group
from stepbench.reporting.steps import PHASES

HELD = f"Held constant: context {CONTEXT}, batch {BATCH}, float32, eager, naive attention."


@figures.styled
def warmup(results: Results) -> Figure:
    """Draw each sample over its step, a row of panels for each size and a panel for each count of warm-up steps."""
    groups = results.groups()
    if not any(group.records for group in groups):
        return figures.nothing(NO_NUMBERS)
    sizes, counts = figures.order(groups, "size"), figures.order(groups, "warmup")
    figure = figures.new(1.0 + 1.75 * len(sizes), HELD)
    grid = figure.subplots(len(sizes), len(counts), sharex=True, sharey="row", squeeze=False)
    for panels, size in zip(grid, sizes, strict=True):
        for axes, count in zip(panels, counts, strict=True):
            found = [group for group in groups if (group.point["size"], group.point["warmup"]) == (size, count)]
            axes.set_axisbelow(True)
            for group in found:
                _draw_samples(axes, group)
            if not any(group.records for group in found):
                status = found[0].status if found else "not in the grid"
                axes.text(0.5, 0.5, status, transform=axes.transAxes, ha="center", color=figures.MUTED)
            if axes in grid[0]:
                axes.set_title(f"warm-up {count}", fontsize=9)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        if any(group.records for group in groups if group.point["size"] == size):
            figures.log_axis(panels[0], "y", figures.duration)
        panels[0].set_ylabel(f"{size}\ntime of a step")
    figure.supxlabel("step since the process began", fontsize=9.5)
    figures.legend_above(figure, 3)
    return figure


def _draw_samples(axes: Axes, group: Group) -> None:
    """Draw the sum of phases of each step, mean ± std of the measured ones behind; hollow if these have a warning."""
    summary = group.summary("step_s") or group.summary("forward_s")
    marks = summary.marks if summary else ()
    for record in group.records:
        present = [phase for phase in PHASES if record.samples.get(f"{phase}_s")]
        if not present:
            continue
        counted = np.sum([record.samples[f"{phase}_s"] for phase in present], axis=0)
        warming = [record.samples.get(f"warmup_{phase}_s") or [] for phase in present]
        before = np.sum(warming, axis=0) if all(warming) else np.array([])
        steps = np.arange(1, before.size + counted.size + 1)
        mean, std = counted.mean(), counted.std(ddof=1) if counted.size > 1 else 0.0
        span = (before.size + 0.5, steps[-1] + 0.5)
        axes.fill_between(
            span,
            max(mean - std, 0.8 * counted.min()),
            mean + std,
            color="#0072B2",
            alpha=0.16,
            linewidth=0,
            label="mean ± standard deviation of the measured steps",
        )
        axes.plot(span, [mean, mean], color="#0072B2", linewidth=1)
        style: Any = {"color": "#0072B2", "markersize": 4, "label": "measured", "zorder": 3}
        inside = drawing.face(axes, "#0072B2", marks)
        (made,) = axes.plot(steps[before.size :], counted, "o", markerfacecolor=inside, **style)
        drawing.tell(made, group, units.seconds(float(mean)), "mean of the measured steps", marks)
        if before.size:
            axes.plot(
                steps[: before.size],
                before,
                "x",
                color="#D55E00",
                markersize=4.5,
                label="warm-up",
                zorder=3,
            )
