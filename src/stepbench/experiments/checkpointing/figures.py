"""The figures of checkpointing: memory over time, and the saved activations of one block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepbench.experiments.checkpointing.groupings import GROUPING, Grouping, models, saved_of
from stepbench.reporting import drawing, figures, units
from stepbench.reporting.columns import held, where
from stepbench.reporting.frames import Results

BAR_INCHES = 0.34
OPERATIONS_SHOWN = 10


@figures.styled
def tradeoff(results: Results) -> Figure:
    """Draw each grouping's peak of activations over its step's time, a panel for each model and step."""
    shown = [
        known for groupings in models(results.groups()) if (known := [each for each in groupings if _has_both(each)])
    ]
    if not shown:
        return figures.nothing("No grouping has both a peak and a time.")
    constant = held([each.group for known in shown for each in known], GROUPING)
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = figures.new(0.6 + 3.0 * rows, constant)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    firsts = [known[0].group for known in shown]
    for axes, known in zip(panels, shown, strict=False):
        _draw_groupings(axes, known)
        if len(shown) > 1:
            axes.set_title(where(known[0].group, firsts))
    for axes in list(panels)[len(shown) :]:
        axes.set_visible(False)
    figures.legend_above(figure, 3)
    return figure


@figures.styled
def saved(results: Results) -> Figure:
    """Draw the saved activations of one block by operation, of the first model that has numbers."""
    known = next((group for group in results.groups() if group.records), None)
    if known is None:
        return figures.nothing("No cell has numbers.")
    found = saved_of(known)
    shown, rest = found[:OPERATIONS_SHOWN], found[OPERATIONS_SHOWN:]
    if rest:
        left = sum(each["saved_bytes"] for each in rest)
        shown = [*shown, {"operation": f"{len(rest)} more", "calls": "", "saved_bytes": left}]
    total = sum(each["saved_bytes"] for each in found)
    unit = units.pick(units.BYTES, [shown[0]["saved_bytes"]])
    figure = figures.new(0.75 + BAR_INCHES * len(shown), held([known], GROUPING))
    axes = figure.subplots()
    sizes = [each["saved_bytes"] / unit.size for each in shown]
    bars = axes.barh(range(len(shown)), sizes, height=0.66, color=figures.PALETTE[0])
    for position, (bar, each, size) in enumerate(zip(bars, shown, sizes, strict=True)):
        drawing.tell(bar, known, units.byte_count(each["saved_bytes"]), _operation(each))
        text = f" {units.byte_count(each['saved_bytes'])}, {units.percent(each['saved_bytes'] / total)}"
        axes.text(size, position, text, va="center", fontsize=8.5, color=figures.MUTED)
    figures.rows(axes, [_operation(each) for each in shown])
    axes.set_xlim(0, 1.22 * max(sizes))
    axes.set_xlabel(f"saved by one block ({unit.name})")
    return figure


def _draw_groupings(axes: Axes, known: Sequence[Grouping]) -> None:
    peaks = [each.peak_bytes or 0 for each in known]
    unit = units.pick(units.BYTES, [max(peaks)])
    names = ("no checkpointing", "groups of blocks", "groups inside groups")
    kinds: dict[str, list[Grouping]] = {name: [] for name in names}
    for each in known:
        kind = "no checkpointing" if each.is_plain else "groups inside groups" if each.is_nested else "groups of blocks"
        kinds[kind].append(each)
    styles = zip(kinds.items(), figures.PALETTE, figures.MARKERS, strict=False)
    for (kind, members), color, marker in styles:
        members.sort(key=lambda each: each.sizes)
        spots = [(each, each.group.summary("step_s"), (each.peak_bytes or 0) / unit.size) for each in members]
        if kind == "groups of blocks":
            line = [(summary.median, peak) for _, summary, peak in spots if summary]
            axes.plot(*zip(*line, strict=True), color=color, linewidth=1, alpha=0.5, zorder=2)
        for each, summary, peak in spots:
            if summary is None:
                continue
            style: Any = {"color": color, "marker": marker, "label": kind}
            told = f"peak {units.byte_count(each.peak_bytes)}, step"
            figures.point(axes, 0, peak, summary, along="x", of=each.group, what=told, **style)
            place: Any = {"xytext": (7, 6), "textcoords": "offset points", "fontsize": 8.5, "color": figures.MUTED}
            axes.annotate(_short(each), (summary.median, peak), **place)
    axes.set_ylim(0, 1.15 * max(peaks) / unit.size)
    axes.margins(x=0.14)
    axes.xaxis.set_major_formatter(lambda value, _: figures.duration(value))
    axes.set_xlabel("median time of a step and its interval")
    axes.set_ylabel(f"peak of activations ({unit.name})")


def _short(grouping: Grouping) -> str:
    return " of ".join(map(str, grouping.sizes)) or "none"


def _operation(each: dict[str, Any]) -> str:
    return f"{each['operation']} × {each['calls']}" if each["calls"] not in ("", 1) else str(each["operation"])


def _has_both(grouping: Grouping) -> bool:
    return grouping.peak_bytes is not None and grouping.group.summary("step_s") is not None
