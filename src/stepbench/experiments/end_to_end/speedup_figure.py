"""The figure of ratios with their intervals and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepbench.reporting import drawing, figures, statistics, units
from stepbench.reporting.columns import axis_words, differences
from stepbench.reporting.comparisons import Pair
from stepbench.reporting.statistics import Comparison, Verdict

ROW_INCHES = 0.27
MAX_ROWS = 40  # more cannot be read; those with the most processes are drawn


def shown(panels: Mapping[str, Sequence[Pair]]) -> dict[str, list[Pair]]:
    """Return the pairs that fit into the figure: those with enough processes if any, else all with a ratio."""
    found: dict[str, list[Pair]] = {}
    room = MAX_ROWS
    for title, pairs in panels.items():
        known = [pair for pair in pairs if pair.comparison]
        decided = [pair for pair in known if pair.processes >= statistics.MIN_PROCESSES]
        if drawn := (decided or known)[:room]:
            found[title] = drawn
            room -= len(drawn)
    return found


@figures.styled
def ratios(panels: Mapping[str, Sequence[Pair]], description: str) -> Figure:
    """Draw one panel for each axis that was compared, and in it one row for each pair that has a ratio."""
    drawn = shown(panels)
    if not drawn:
        return figures.nothing("No comparison has numbers on both sides.")
    heights = [len(pairs) + 1.1 for pairs in drawn.values()]
    figure = figures.new(1.2 + ROW_INCHES * sum(heights), description)
    grid = figure.subplots(len(drawn), 1, sharex=True, squeeze=False, height_ratios=heights)
    for axes, (title, pairs) in zip(grid[:, 0], drawn.items(), strict=True):
        axes.set_title(title)
        axes.axvspan(1 / (1 + statistics.SAME_WITHIN), 1 + statistics.SAME_WITHIN, color="#f1f1f1", zorder=0)
        axes.axvline(1, color=figures.INK, linewidth=0.9, zorder=1)
        for position, pair in enumerate(pairs):
            if pair.comparison:
                _draw(axes, position, pair, pair.comparison)
        figures.rows(axes, [_label(pair, pairs) for pair in pairs])
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", left=False)
    last = grid[-1, 0]
    low, high = _limits([pair.comparison for pairs in drawn.values() for pair in pairs if pair.comparison])
    last.set_xlim(low, high)
    figures.log_axis(last, "x", lambda value: f"{value:g}×")
    last.set_xlabel("speed relative to the baseline (above 1 is faster)")
    figures.legend_above(figure, 1)
    return figure


def _draw(axes: Axes, position: int, pair: Pair, comparison: Comparison) -> None:
    color = figures.VERDICT_COLORS[comparison.verdict]
    if comparison.low is not None and comparison.high is not None:
        axes.plot([comparison.low, comparison.high], [position] * 2, color=color, linewidth=2, solid_capstyle="butt")
    marks = pair.marks
    unclear = comparison.verdict is Verdict.UNCLEAR
    style: Any = {"color": color, "markerfacecolor": drawing.face(axes, color, marks), "zorder": 3}
    (made,) = axes.plot(comparison.ratio, position, "d" if unclear else "o", **style)
    interval = units.ratio(comparison.ratio, comparison.low, comparison.high)
    against = axis_words(pair.baseline.point[pair.axis])
    drawing.tell(made, pair.other, f"{interval} the speed of {against}, {comparison.verdict}", marks=marks)
    text = f"{units.ratio(comparison.ratio)}  {comparison.verdict}"
    axes.annotate(
        text,
        (1.0, position),
        xycoords=axes.get_yaxis_transform(),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=figures.MUTED if unclear else color,
        annotation_clip=False,
    )


def _label(pair: Pair, pairs: Sequence[Pair]) -> str:
    against = f"{axis_words(pair.value)} against {axis_words(pair.baseline.point[pair.axis])}"
    more = differences(pair.other, [each.other for each in pairs], pair.axis)
    return f"{more}: {against}" if more else against


def _limits(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """Return limits that hold every ratio, and the intervals as far as these are not absurd."""
    ratios = [each.ratio for each in comparisons]
    bounds = [b for each in comparisons for b in (each.low, each.high) if b is not None and 0.02 < b < 50]
    return 0.93 * min([*ratios, *bounds, 0.9]), 1.07 * max([*ratios, *bounds, 1.1])
