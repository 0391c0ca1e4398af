"""The figure of the ladder: the time of a token on each rung."""

from __future__ import annotations

import dataclasses
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepbench.experiments.ladder.climb import AXIS, BASE, STEP, Climbed, Ladder, ladders
from stepbench.reporting import figures, units
from stepbench.reporting.columns import held, where
from stepbench.reporting.frames import Results

ROW_INCHES = 0.32


@figures.styled
def ladder(results: Results) -> Figure:
    """Draw for each point the median time of a token on every rung, from the plain step down to the fastest."""
    shown = [each for each in ladders(results.groups()) if each.foot is not None]
    if not shown:
        return figures.nothing(figures.NO_NUMBERS)
    firsts = [each.rungs[0].group for each in shown]
    heights = [len(each.rungs) + 1.6 for each in shown]
    figure = figures.new(0.9 + ROW_INCHES * sum(heights), held(firsts, AXIS))
    panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, each in zip(panels, shown, strict=True):
        _draw(axes, each)
        if len(shown) > 1:
            axes.set_title(where(each.rungs[0].group, firsts, AXIS))
    panels[-1].set_xlabel("median time of a token and its interval")
    figures.legend_above(figure, 3)
    return figure


def _draw(axes: Axes, ladder: Ladder) -> None:
    assert ladder.foot is not None  # noqa: S101 - the caller has looked
    labels = ["plain", *(each.name for each in ladder.rungs)]
    best = None
    for position, (rung, which) in enumerate([(ladder.foot, BASE), *((each, STEP) for each in ladder.rungs)]):
        stays = which == BASE or rung.kept
        spot = _point(axes, position, rung, which, stays=stays)
        if spot is None:
            style: Any = {"color": figures.MUTED, "va": "center", "backgroundcolor": "white"}
            axes.text(0.01, position, rung.group.status, transform=axes.get_yaxis_transform(), **style)
        elif best is not None and rung.comparison is not None and which == STEP:
            axes.annotate(
                f"{units.ratio(rung.comparison.ratio)}  {rung.comparison.verdict}",
                (1.0, position),
                xycoords=axes.get_yaxis_transform(),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=figures.VERDICT_COLORS[rung.comparison.verdict],
                annotation_clip=False,
            )
        if spot is not None and stays:
            if best is not None:
                axes.plot([best, best, spot], [position - 1, position, position], color=figures.MUTED, linewidth=0.8)
            best = spot
        elif best is not None:
            axes.plot([best, best], [position - 1, position], color=figures.MUTED, linewidth=0.8)
    figures.rows(axes, labels)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: figures.duration(value))


def _point(axes: Axes, position: int, rung: Climbed, which: str, *, stays: bool) -> float | None:
    summary, tokens = rung.summary(which), rung.tokens(which)
    if summary is None or not tokens:
        return None
    low, high = (None if bound is None else bound / tokens for bound in (summary.low, summary.high))
    per_token = dataclasses.replace(summary, median=summary.median / tokens, low=low, high=high)
    color, marker = (figures.PALETTE[0], "o") if stays else (figures.PALETTE[1], "X")
    label = "stays" if stays else "left out of what follows"
    figures.point(
        axes, 0, position, per_token, along="x", of=rung.group, what=which, color=color, marker=marker, label=label
    )
    return per_token.median
