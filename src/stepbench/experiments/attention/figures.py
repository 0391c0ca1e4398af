"""The figures of one attention operator over the sequence length."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepbench.experiments.attention import kernel_table
from stepbench.experiments.attention.slices import OVER, PASSES, slice_of
from stepbench.reporting import figures, units
from stepbench.reporting.columns import axis_words
from stepbench.reporting.figures import NO_NUMBERS
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group
from stepbench.reporting.statistics import Summary


def latency(results: Results) -> Figure:
    """Draw the median time of both passes over the sequence length, one line for each implementation."""
    return _over_length(results.groups(), rate=False)


def rate(results: Results) -> Figure:
    """Draw the FLOP/s of both passes over the sequence length, one line for each implementation."""
    return _over_length(results.groups(), rate=True)


@figures.styled
def limits(_results: Results) -> Figure:
    """Draw what the cycles of a round of each Triton kernel's loop go to on an H100, predicted from its code."""
    kept = kernel_table.read()
    rows = kernel_table.limits_rows(kept["rows"], kernel_table.read(kernel_table.TILES))
    figure = figures.new(
        0.9 + 0.28 * len(rows),
        f"Predicted for an H100 SXM from the code that Triton {kept['triton']} compiles, in bfloat16: shares of the "
        "cycles of the loop without a mask, in percent.",
    )
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        parts = {"instructions issue": row["issue"], **{f"wait: {name}": row[name] for name in kernel_table.WAITS}}
        figures.shares(axes, place, parts, figures.PALETTE[: len(parts)])
    axes.set_yticks(range(len(rows)), [f"{row['kernel']} {row['head_dim']}" for row in reversed(rows)])
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the cycles (%)")
    axes.grid(visible=False, axis="y")
    figures.legend_above(figure, 3)
    return figure


@figures.styled
def _over_length(groups: Sequence[Group], *, rate: bool) -> Figure:
    """Draw the median time (or the FLOPs per second) of both passes, one line for each implementation."""
    shown = slice_of(groups)
    if not any(group.records for group in shown):
        return figures.nothing(NO_NUMBERS)
    constant = ", ".join(
        f"{axis_words(axis)} {axis_words(value)}" for axis, value in shown[0].point.items() if axis not in OVER
    )
    figure = figures.new(4.2, f"Held constant: {constant}. Axes are logarithmic, bars are 95 % intervals.")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, each in zip(panels, PASSES, strict=True):
        for place, name in enumerate(figures.order(shown, "implementation")):
            found = [group for group in shown if group.point["implementation"] == name]
            summaries = [(group, _summary(group, each, rate=rate)) for group in found]
            _draw_line(axes, summaries, place, axis_words(name), units.flop_rate if rate else units.seconds)
        axes.set_title(f"{each} pass")
    # The second panel shares the first one's scale, so the first must know the limits of both.
    figures.log_axis(panels[0], "y", units.flop_tick if rate else figures.duration)
    lengths = sorted({group.point["seq"] for group in shown})
    for axes in panels:
        figures.log_axis(axes, "x")
        axes.set_xlim(lengths[0] / 1.2, lengths[-1] * 1.2)
        axes.set_xticks(lengths, [str(length) for length in lengths], rotation=45 if len(lengths) > 6 else 0)
        axes.set_xticks([], minor=True)
        axes.set_xlabel("sequence length (tokens)")
    panels[0].set_ylabel("rate" if rate else "median time")
    figures.legend_above(figure, 5)
    return figure


def _summary(group: Group, name: str, *, rate: bool) -> Summary | None:
    """Return the summary of a pass' times, or of its FLOPs per second."""
    summary, work = group.summary(f"{name}_s"), group.scalar(f"{name}_flops")
    if summary is None or not rate:
        return summary
    if not summary.median:  # less than a device's events can tell; the table has it as short
        return None
    low, high = (work / bound if bound else None for bound in (summary.high, summary.low))
    return dataclasses.replace(summary, median=work / summary.median, low=low, high=high)


def _draw_line(
    axes: Axes,
    found: Sequence[tuple[Group, Summary | None]],
    place: int,
    label: str,
    text: Callable[[float | None], str],
) -> None:
    known = sorted(
        ((group.point["seq"], summary, group) for group, summary in found if summary), key=lambda each: each[0]
    )
    color = figures.PALETTE[place % len(figures.PALETTE)]
    # The eighth line has the first one's colour and another marker.
    marker = figures.MARKERS[(place + place // len(figures.PALETTE)) % len(figures.MARKERS)]
    axes.plot([x for x, *_ in known], [summary.median for _, summary, _ in known], color=color, linewidth=1.2)
    for x, summary, group in known:
        figures.point(axes, x, 0, summary, along="y", of=group, text=text, color=color, marker=marker, label=label)
