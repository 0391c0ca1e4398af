"""The figures of data parallelism: exposed communication, timeline, projection."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from stepbench.experiments.data_parallel import projection as projected
from stepbench.experiments.data_parallel.exposure import exposed as less_than_without
from stepbench.reporting import figures, timelines
from stepbench.reporting.columns import held, variant
from stepbench.reporting.frames import Results

ROW_INCHES = 0.42
KINDS = ("whole step", "exposed wait", "whole step − step without communication")


@figures.styled
def exposed(results: Results) -> Figure:
    """Draw a row for each point: its step and its exposed communication, measured in two ways."""
    shown = [group for group in results.groups() if group.summary("step_s") is not None]
    if not shown:
        return figures.nothing("No strategy has numbers.")
    figure = figures.new(1.15 + ROW_INCHES * len(shown), held(shown, "strategy"))
    axes = figure.subplots()
    for position, group in enumerate(shown):
        summaries = (group.summary("step_s"), group.summary("comm_wait_s"), less_than_without(group))
        for kind, (name, summary) in enumerate(zip(KINDS, summaries, strict=True)):
            if summary is None or (kind == 1 and summary.median == 0):
                continue
            style: Any = {"color": figures.PALETTE[kind], "marker": figures.MARKERS[kind], "label": name}
            figures.point(axes, 0, position + 0.16 * (kind - 1), summary, along="x", of=group, what=name, **style)
    axes.axvline(0, color=figures.INK, linewidth=0.8)
    figures.rows(axes, [variant(group, shown, "strategy") for group in shown])
    axes.xaxis.set_major_formatter(lambda value, _: figures.duration(value) if value else "0")
    axes.set_xlabel("time of the slowest rank, median and 95 % interval")
    figures.legend_above(figure, 2)
    return figure


def timeline(results: Results) -> Figure:
    """Draw a step of each strategy over time."""
    return timelines.timeline(results, "strategy")


def projection(results: Results) -> Figure:
    """Draw the projection to more ranks."""
    return projected.figure(results)
