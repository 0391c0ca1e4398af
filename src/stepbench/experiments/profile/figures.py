"""The figures of a profile: each phase by kind of work, and the operators that take the most time."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepbench.experiments.profile import operators as ops
from stepbench.experiments.profile.operators import KINDS, Phase
from stepbench.reporting import drawing, figures, units
from stepbench.reporting.columns import held
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group

COLORS = dict(
    zip(KINDS, ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#b9b9b9", "#e4e4e4"), strict=True)
)
ROW_INCHES = 0.36
TOP = 7
NAME_CHARACTERS = 40


@figures.styled
def shares(results: Results) -> Figure:
    """Draw a bar for each phase of each cell, stacked by kind of work."""
    groups = results.groups()
    known = [(group, phase) for group in groups for phase in ops.phases(group)]
    if not known:
        return figures.nothing("No cell has numbers.")
    drawn = [group for group in groups if group.records]
    figure = figures.new(1.5 + ROW_INCHES * len(known) + 0.2 * len(drawn), held(drawn))
    axes = figure.subplots()
    places, texts, place = [], [], 0.0
    for group in drawn:
        if len(drawn) > 1:
            axes.text(0, place - 0.45, ops.place(group, drawn), fontsize=8.5, color=figures.MUTED, va="bottom")
        for phase in ops.phases(group):
            _draw_shares(axes, place, group, phase)
            places.append(place)
            texts.append(f"{phase.name}\n{units.seconds(phase.seconds)}")
            place += 1
        place += 0.55
    axes.set_yticks(places, texts, fontsize=8.5)
    axes.set_ylim(places[-1] + 0.55, -0.95 if len(drawn) > 1 else -0.55)
    figures.share_axis(axes, "share of the phase's time (%)")
    figures.legend_above(figure, 4)
    return figure


@figures.styled
def operators(results: Results) -> Figure:
    """Draw the operators that take the most time in each phase of one step, a panel for each phase."""
    groups = results.groups()
    known = [group for group in groups if ops.phases(group)]
    if not known:
        return figures.nothing("No cell has numbers.")
    chosen = max(known, key=lambda group: len(ops.phases(group)))
    found = ops.phases(chosen)
    figure = figures.new(0.5 + 0.29 * sum(len(phase.top(TOP)) + 2 for phase in found), held([chosen]))
    heights = [len(phase.top(TOP)) + 1 for phase in found]
    panels = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, phase in zip(panels, found, strict=True):
        _draw_top(axes, chosen, phase)
    return figure


def _draw_shares(axes: Axes, place: float, group: Group, phase: Phase) -> None:
    found = {kind: seconds for kind, seconds in phase.by_kind().items() if seconds}
    figures.shares(axes, place, found, [COLORS[kind] for kind in found], group)


def _draw_top(axes: Axes, group: Group, phase: Phase) -> None:
    shown = phase.top(TOP)
    unit = units.pick(units.SECONDS, [phase.time(shown[0])] if shown else [])
    values = [phase.time(each) / unit.size for each in shown]
    colors = [COLORS[ops.kind_of(each["name"])] for each in shown]
    bars = axes.barh(range(len(shown)), values, height=0.68, color=colors)
    for position, (bar, each, value) in enumerate(zip(bars, shown, values, strict=True)):
        drawing.tell(bar, group, units.seconds(phase.time(each)), each["name"])
        calls = ops.count(each["calls"])
        text = f" {units.percent(phase.time(each) / phase.seconds)}, {calls} calls"
        place: Any = {"va": "center", "fontsize": 8, "color": figures.MUTED}
        axes.text(value, position, text, **place)
    figures.rows(axes, [_short(each["name"]) for each in shown], fontsize=8.5)
    axes.set_xlim(0, 1.25 * max(values, default=1.0))
    axes.set_xlabel(f"time in a step ({unit.name})", fontsize=8.5)
    axes.set_title(f"{phase.name}, {units.seconds(phase.seconds)}")


def _short(name: str) -> str:
    name = name.removeprefix("autograd::engine::evaluate_function: ")
    return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"
