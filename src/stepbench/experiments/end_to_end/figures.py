"""The figures of the training step: phases by size, time over context, comparisons, the roofline."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepbench.experiments.end_to_end import reference as points
from stepbench.experiments.end_to_end import speedup_figure
from stepbench.experiments.end_to_end.reference import COMPARED, REFERENCE, reference
from stepbench.reporting import columns, comparisons, drawing, figures, units
from stepbench.reporting import roofline as drawn
from stepbench.reporting.figures import NO_NUMBERS
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group
from stepbench.reporting.statistics import Summary
from stepbench.reporting.steps import PHASES, WHOLE

ROW_INCHES = 0.46
OFFSETS = (-0.21, -0.07, 0.07, 0.21)  # of the three phases and the step, so that no interval hides another

STEP_IN_THE_ROOFLINE = (
    "Solid: measured peaks; dashed: the vendor's figures where they are known. A step is drawn as if it moved weights, "
    "gradients and optimizer state only; activations would shift it to the left."
)


def phases(results: Results) -> Figure:
    """Draw each phase's time and share, a row for each size."""
    shown = points.by_size(results.groups())
    return _phases(shown, columns.held(shown))


def context(results: Results) -> Figure:
    """Draw the step's time and the tokens per second over the context length."""
    shown = reference(results.groups())
    return _scaling(shown, "context", "context length (tokens)", columns.held(shown))


def speedups(results: Results) -> Figure:
    """Draw the ratios of the comparisons."""
    panels = {title: comparisons.pairs(results, axis, REFERENCE[axis]) for axis, title in COMPARED.items()}
    shown = [pair.other for pairs in speedup_figure.shown(panels).values() for pair in pairs]
    return speedup_figure.ratios(panels, columns.held(shown))


def roofline(results: Results) -> Figure:
    """Draw the steps in the roofline."""
    return drawn.draw(results.peaks, drawn.steps(results.groups()), STEP_IN_THE_ROOFLINE)


@figures.styled
def _phases(groups: Sequence[Group], description: str) -> Figure:
    """Draw one row for each point: at the left the phases' and the step's times, at the right the phases' shares."""
    if not any(group.records for group in groups):
        return figures.nothing(NO_NUMBERS)
    summaries = [{name: group.summary(f"{name}_s") for name in (*PHASES, WHOLE)} for group in groups]
    figure = figures.new(1.35 + ROW_INCHES * len(groups), description)
    times, shares = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1])
    positions = range(len(groups))
    for position, group, found in zip(positions, groups, summaries, strict=True):
        _draw_times(times, position, group, found)
        _draw_shares(shares, position, group, found)
        if not any(found.values()):
            text = f"no numbers: {group.status}"
            times.text(0.02, position, text, transform=times.get_yaxis_transform(), va="center", color=figures.MUTED)
    figures.rows(times, [_row_label(group, groups) for group in groups])
    times.set_xlabel("median time and its interval")
    figures.log_axis(times, "x", figures.duration)
    figures.share_axis(shares, "share of the sum of phases (%)")
    figures.legend_above(figure, 5)
    return figure


def _draw_times(axes: Axes, position: int, group: Group, found: Mapping[str, Summary | None]) -> None:
    for offset, (name, summary) in zip(OFFSETS, found.items(), strict=True):
        if summary is not None:
            style: Any = {"color": figures.PHASE_COLORS[name], "marker": figures.PHASE_MARKERS[name]}
            label = "whole step" if name == WHOLE else name
            figures.point(axes, 0, position + offset, summary, along="x", of=group, what=label, label=label, **style)


def _draw_shares(axes: Axes, position: int, group: Group, found: Mapping[str, Summary | None]) -> None:
    parts = {name: summary.median for name in PHASES if (summary := found[name]) is not None}
    figures.shares(axes, position, parts, [figures.PHASE_COLORS[name] for name in parts], group)


def _row_label(group: Group, groups: Sequence[Group]) -> str:
    parameters = group.scalar("parameters")
    lines = [f"{group.point['size']}" + (f"  {units.count(parameters)}" if parameters else "")]
    return "\n".join(filter(None, [*lines, columns.differences(group, groups, "size")]))


@figures.styled
def _scaling(groups: Sequence[Group], axis: str, label: str, description: str) -> Figure:
    """Draw the whole step's time and the tokens per second over a numeric axis, one line for each size."""
    if not any(group.records for group in groups):
        return figures.nothing(NO_NUMBERS)
    figure = figures.new(3.9, description)
    times, rates = figure.subplots(1, 2)
    sizes = figures.order(groups, "size")
    failed = 0
    for size, color, marker in zip(sizes, itertools.cycle(figures.PALETTE), itertools.cycle(figures.MARKERS)):
        found = [(group, group.summary(f"{WHOLE}_s")) for group in groups if group.point["size"] == size]
        known = sorted(((g.point[axis], s, g) for g, s in found if s is not None), key=lambda each: each[0])
        xs = [x for x, _, _ in known]
        times.plot(xs, [s.median for _, s, _ in known], color=color, linewidth=1.2)
        tokens = [(g.scalar("tokens_per_step") or math.nan) / s.median for _, s, g in known]
        rates.plot(xs, tokens, color=color, linewidth=1.2)
        for (x, summary, group), rate in zip(known, tokens, strict=True):
            figures.point(times, x, 0, summary, along="y", of=group, color=color, marker=marker, label=size)
            inside = drawing.face(rates, color, summary.marks)
            (made,) = rates.plot(x, rate, color=color, marker=marker, markerfacecolor=inside)
            drawing.tell(made, group, f"{units.number(rate)} tokens/s", marks=summary.marks)
        if not known:
            times.plot([], [], marker, color=color, linestyle="none", label=size)
        missing = [group.point[axis] for group, summary in found if summary is None]
        if missing:
            # Above the axes, a line for each size, so that no cross hides another or a point.
            style = {"color": color, "transform": times.get_xaxis_transform(), "clip_on": False}
            times.plot(missing, [1.03 + 0.045 * failed] * len(missing), "x", **style)
            failed += 1
    if failed:
        times.plot([], [], "x", color=figures.MUTED, label="no numbers")
    values = sorted({group.point[axis] for group in groups})
    for axes, text in ((times, figures.duration), (rates, None)):
        figures.log_axis(axes, "x")
        figures.log_axis(axes, "y", text)
        axes.set_xticks(values, [str(value) for value in values])
        axes.set_xticks([], minor=True)
        axes.set_xlim(values[0] / 1.2, values[-1] * 1.2)
        axes.set_xlabel(label)
    times.set_ylabel("median time of a step")
    rates.set_ylabel("tokens per second")
    figures.legend_above(figure, 5)
    return figure
