"""The figure of whole epochs."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from stepbench.experiments.encoder_decoder import epochs
from stepbench.reporting import drawing, figures, units
from stepbench.reporting.columns import MARKS_OF_ROW, axis_words, differences, held
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group

ROW_INCHES = 0.36


@figures.styled
def throughput(results: Results) -> Figure:
    """Draw a row for each point: samples/s over all ranks on the left, the share of waiting for data on the right."""
    shown = [group for group in results.groups() if group.summary(epochs.KEY) is not None]
    if not shown:
        return figures.nothing("No epoch has numbers.")
    figure = figures.new(1.2 + ROW_INCHES * len(shown), held(shown))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    sources = figures.order(shown, "data")
    for position, group in enumerate(shown):
        color = figures.PALETTE[sources.index(group.point["data"])]
        row = epochs.row(group)
        samples = row["samples_per_epoch"]
        bounds = [row[f"epoch_{side}_s"] for side in ("high", "low")]
        ends = [samples / bound if bound else row["samples_per_s"] for bound in bounds]
        errors = [[max(0.0, row["samples_per_s"] - ends[0])], [max(0.0, ends[1] - row["samples_per_s"])]]
        marks = row[MARKS_OF_ROW]
        inside = drawing.face(left, color, marks)
        style: Any = {"height": 0.6, "color": inside, "edgecolor": color, "linewidth": 1.2}
        (bar,) = left.barh(position, row["samples_per_s"], label=axis_words(group.point["data"]), **style)
        drawing.tell(bar, group, f"{units.number(row['samples_per_s'])} samples/s", marks=marks)
        if all(bounds):  # three epochs of one process have no interval
            ink = {"color": figures.INK, "capsize": 2.5, "linestyle": "none"}
            left.errorbar([row["samples_per_s"]], [position], xerr=errors, **ink)
        (bar,) = right.barh(position, 100 * (row["data_wait_ratio"] or 0.0), **style)
        drawing.tell(bar, group, units.percent(row["data_wait_ratio"]), "waiting for data", marks)
        right.annotate(
            units.percent(row["data_wait_ratio"]),
            (100 * (row["data_wait_ratio"] or 0.0), position),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    figures.rows(left, [_label(group, shown) for group in shown])
    left.set_xlabel("samples/s of all ranks")
    right.set_xlabel("% of the epoch spent waiting for data")
    right.set_xlim(0, max(10.0, 1.25 * right.get_xlim()[1]))
    right.grid(visible=False, axis="y")
    figures.legend_above(figure, 2)
    return figure


def _label(group: Group, shown: list[Group]) -> str:
    """Return how a point differs from the others, apart from the data, which its color shows."""
    return differences(group, shown, "data") or axis_words(group.point["data"])
