"""The figures of memory: a step's bytes over time, the peak by size, the peak over the context."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stepbench.experiments.memory.shapes import (
    MEASURED,
    PREDICTED,
    WORDS,
    Shape,
    by_category,
    by_size,
    over_context,
    shapes,
)
from stepbench.measure.memory_timeline import ACTIVATIONS, CATEGORIES
from stepbench.reporting import drawing, figures, units
from stepbench.reporting.columns import held, where
from stepbench.reporting.figures import CATEGORY_COLORS as COLORS
from stepbench.reporting.frames import Results
from stepbench.reporting.marks import fatal
from stepbench.reporting.units import Unit

ROW_INCHES = 0.42
STRIPS = 350  # of a timeline's width


@figures.styled
def timeline(results: Results) -> Figure:
    """Draw the bytes of each category over a training step, a panel for each of a few steps."""
    shown = _chosen(shapes(results))
    if not shown:
        return figures.nothing("No step's memory has been predicted or measured.")
    steps = [shape for shape, _ in shown]
    figure = figures.new(0.75 + 2.15 * len(shown), held(steps))
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, (shape, source) in zip(panels, shown, strict=True):
        group = shape.group(source)
        assert group is not None  # noqa: S101 - `_chosen` has looked
        _draw_timeline(axes, group.records[0].details["timeline"])
        axes.set_title(f"{where(shape, steps)}, {source}", pad=14)
    figures.legend_above(figure, len(CATEGORIES))
    return figure


@figures.styled
def sizes(results: Results) -> Figure:
    """Draw a row for each size: at the left the peak of a training step, at the right its shares by category."""
    shown = by_size(shapes(results))
    if not shown:
        return figures.nothing("No training step's memory has been predicted or measured.")
    figure = figures.new(1.25 + ROW_INCHES * len(shown), held(shown))
    peaks, shares = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.35])
    for position, shape in enumerate(shown):
        _draw_peaks(peaks, position, shape)
        _draw_shares(shares, position, shape)
    figures.rows(peaks, [str(shape.point["size"]) for shape in shown])
    peaks.set_xlabel("peak of a step")
    peaks.margins(x=0.14)  # room for the texts of the outermost points
    figures.log_axis(peaks, "x", _bytes_tick)
    _powers_of_two(peaks, "x")
    figures.share_axis(shares, "share of the peak (%)")
    figures.legend_above(figure, 4)
    return figure


@figures.styled
def context(results: Results) -> Figure:
    """Draw the peak over the context, a line for each kind of step that has several contexts."""
    several = over_context(shapes(results))
    if not several:
        return figures.nothing("No kind of step has numbers at more than one context.")
    every = [shape for each in several for shape in each]
    named = [each[0] for each in several]
    figure = figures.new(3.9, held(every))
    axes = figure.subplots()
    colors, markers = itertools.cycle(figures.PALETTE), itertools.cycle(figures.MARKERS)
    for each, color, marker in zip(several, colors, markers, strict=False):
        _draw_kind(axes, each, where(each[0], named), color=color, marker=marker)
    figures.log_axis(axes, "x")
    figures.log_axis(axes, "y", _bytes_tick)
    _powers_of_two(axes, "y")
    values = sorted({shape.point["context"] for shape in every})
    axes.set_xticks(values, [str(value) for value in values])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("context length (tokens)")
    axes.set_ylabel("peak of a step")
    figures.legend_above(figure, 2)
    return figure


def _chosen(found: Sequence[Shape]) -> list[tuple[Shape, str]]:
    """Return the steps to show, with their sources: the measured ones that look most different, and the largest.

    Most different are the one whose activations have the largest share of the peak and the one with the smallest.
    """
    steps = [shape for shape in found if shape.point["passes"] == "train_step"]
    measured = sorted((shape for shape in steps if shape.group(MEASURED)), key=_activation_share)
    chosen = [(shape, MEASURED) for shape in (measured[-1:] + measured[:1] if len(measured) > 1 else measured)]
    predicted = [shape for shape in steps if shape.group(PREDICTED)]
    if predicted:
        largest = max(predicted, key=lambda shape: shape.peak_bytes(PREDICTED) or 0)
        if all(shape is not largest for shape, _ in chosen):
            chosen.append((largest, PREDICTED))
    return chosen


def _activation_share(shape: Shape) -> float:
    parts = by_category(shape.best[1], "peak") if shape.best else None
    return parts[ACTIVATIONS] / sum(parts.values()) if parts else 0.0


def _draw_timeline(axes: Axes, timeline: dict[str, Any]) -> None:
    moments, spans = timeline["moments"], timeline["spans"]
    end = spans[-1][2]
    highest = max(map(sum, zip(*timeline["bytes"].values(), strict=True)))
    unit = units.pick(units.BYTES, [highest])
    in_time = timeline["unit"] == "s"
    x_unit = units.pick(units.SECONDS, [end]) if in_time else Unit("", 1.0)
    kept = _seen(moments, [sum(each) for each in zip(*timeline["bytes"].values(), strict=True)], end)
    xs = [moment / x_unit.size for moment in (*(moments[place] for place in kept), end)]
    below = [0.0] * len(xs)
    for category in CATEGORIES:
        found = timeline["bytes"][category]
        above = [base + found[place] / unit.size for base, place in zip(below, (*kept, kept[-1]), strict=True)]
        turns = [0, *(i for i in range(1, len(xs) - 1) if (below[i], above[i]) != (below[i - 1], above[i - 1])), -1]
        x, low, high = ([values[i] for i in turns] for values in (xs, below, above))
        axes.fill_between(x, low, high, step="post", linewidth=0, color=COLORS[category], label=WORDS[category])
        below = above
    for index, (name, start, stop) in enumerate(spans):
        middle = (start + stop) / 2 / x_unit.size
        if index:
            axes.axvline(start / x_unit.size, color=figures.INK, linewidth=0.8, linestyle=(0, (3, 2)))
        place = {"ha": "center", "va": "bottom", "fontsize": 8.5, "color": figures.MUTED}
        axes.annotate(name, (middle, 1), xycoords=axes.get_xaxis_transform(), **place)  # type: ignore[arg-type]
    axes.set_xlim(0, end / x_unit.size)
    axes.set_ylim(0, 1.04 * highest / unit.size)
    axes.set_ylabel(f"allocated ({unit.name})")
    axes.set_xlabel(f"time ({x_unit.name})" if in_time else "allocations and frees, in order")
    axes.grid(visible=False, axis="x")


def _seen(moments: Sequence[float], totals: Sequence[int], end: float) -> list[int]:
    """Return the places of the first, the highest and the lowest moment in each strip as narrow as a line is thick."""
    strips: dict[int, list[int]] = {}
    for place, moment in enumerate(moments):
        strips.setdefault(int(moment / end * STRIPS), []).append(place)
    ends = (f(strip, key=totals.__getitem__) for strip in strips.values() for f in (max, min))
    return sorted({*ends, *(strip[0] for strip in strips.values()), len(moments) - 1})


def _draw_peaks(axes: Axes, position: int, shape: Shape) -> None:
    """Draw the measured peak as a point, the predicted one as a line across it."""
    predicted, measured = shape.peak_bytes(PREDICTED), shape.peak_bytes(MEASURED)
    across: dict[str, Any] = {"markeredgewidth": 2.2, "markersize": 15, "linestyle": "none"}
    group = shape.best[1] if shape.best else None
    if predicted is not None:
        (made,) = axes.plot([predicted], [position], "|", color=figures.PALETTE[1], label="predicted", **across)
        if group is not None:
            drawing.tell(made, shape.group(PREDICTED) or group, units.byte_count(predicted), "predicted peak")
    if measured is not None and group is not None:
        style: dict[str, Any] = {"color": figures.PALETTE[0], "linestyle": "none", "label": "measured", "zorder": 3}
        inside = drawing.face(axes, figures.PALETTE[0], fatal(group.marks))
        (made,) = axes.plot([measured], [position], "o", markerfacecolor=inside, **style)
        drawing.tell(made, group, units.byte_count(measured), "measured peak", fatal(group.marks))
    known = measured or predicted
    if known is not None:
        place: Any = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "fontsize": 8.5}
        axes.annotate(units.byte_count(known), (known, position), color=figures.MUTED, **place)


def _draw_shares(axes: Axes, position: int, shape: Shape) -> None:
    assert shape.best is not None  # noqa: S101 - `by_size` has looked
    parts = by_category(shape.best[1], "peak")
    if not parts:
        return
    figures.shares(
        axes,
        position,
        {WORDS[name]: part for name, part in parts.items()},
        [COLORS[name] for name in parts],
        shape.best[1],
    )


def _draw_kind(axes: Axes, shapes: Sequence[Shape], name: str, *, color: str, marker: str) -> None:
    for source, style in ((PREDICTED, {"linestyle": "-"}), (MEASURED, {})):
        known = [(shape.point["context"], peak, shape) for shape in shapes if (peak := shape.peak_bytes(source))]
        if known and source == PREDICTED:
            xs, ys, _ = zip(*known, strict=True)
            axes.plot(xs, ys, color=color, label=f"{name}, {source}", linewidth=1.3, **style)  # type: ignore[arg-type]
        for x, peak, shape in known if source == MEASURED else ():
            group = shape.best[1] if shape.best else None
            found = fatal(group.marks) if group else ()
            inside = drawing.face(axes, color, found)
            look: Any = {"color": color, "label": f"{name}, {source}", "markerfacecolor": inside}
            (made,) = axes.plot([x], [peak], linestyle="none", marker=marker, **look)
            if group is not None:
                drawing.tell(made, group, units.byte_count(peak), "measured peak", found)


def _powers_of_two(axes: Axes, which: str) -> None:
    """Put ticks at powers of two, so that memory reads 512 MiB and 1 GiB; at most some eight, and two at least."""
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    step = max(1, -(-(last - first) // (4 if which == "x" else 8)))
    ticks = [2.0**power for power in range(first, last + 1, step)]
    if len(ticks) < 2:
        unit = units.pick(units.BYTES, [high])
        even = MaxNLocator(4).tick_values(low / unit.size, high / unit.size)
        ticks = [tick * unit.size for tick in even if low <= tick * unit.size <= high]
    (axes.set_xticks if which == "x" else axes.set_yticks)(ticks, [_bytes_tick(tick) for tick in ticks])
    (axes.set_xticks if which == "x" else axes.set_yticks)([], minor=True)


def _bytes_tick(value: float) -> str:
    unit = units.pick(units.BYTES, [value])
    return f"{value / unit.size:g} {unit.name}"
