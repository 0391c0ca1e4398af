"""The figures of data parallelism: exposed communication, timeline, projection."""

from __future__ import annotations

from matplotlib.figure import Figure

from stepbench.experiments.data_parallel import projection as projected
from stepbench.experiments.data_parallel.exposure import exposed as less_than_without
from stepbench.reporting import figures, timelines
from stepbench.reporting.columns import axis_words, held_constant
from stepbench.reporting.findings import where
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group

ROW_INCHES = 0.42
KINDS = ("whole step", "exposed wait", "whole step − step without communication")


@figures.styled
def exposed(results: Results) -> Figure:
    """Draw a row for each point: its step and its exposed communication, measured in two ways."""
    shown = [group for group in results.groups() if group.summary("step_s") is not None]
    if not shown:
        return figures.nothing("No strategy has numbers.")
    axes_shown = [axis for axis in shown[0].point if axis != "strategy"]
    figure = figures.new(1.15 + ROW_INCHES * len(shown), held_constant([group.point for group in shown], axes_shown))
    axes = figure.subplots()
    for position, group in enumerate(shown):
        summaries = (group.summary("step_s"), group.summary("comm_wait_s"), less_than_without(group))
        for kind, (name, summary) in enumerate(zip(KINDS, summaries, strict=True)):
            if summary is None or (kind == 1 and summary.median == 0):
                continue
            style = {"color": figures.PALETTE[kind], "marker": figures.MARKERS[kind], "label": name}
            figures.point(axes, 0, position + 0.16 * (kind - 1), summary, along="x", **style)
    axes.axvline(0, color=figures.INK, linewidth=0.8)
    figures.rows(axes, [_label(group, shown) for group in shown])
    axes.xaxis.set_major_formatter(lambda value, _: figures.duration(value) if value else "0")
    axes.set_xlabel("time of the slowest rank, median and 95 % interval")
    figures.explain_hollow(axes, [group.summary("step_s") for group in shown])
    figures.legend_above(figure, 2)
    return figure


def timeline(results: Results) -> Figure:
    """Draw a step of each strategy over time."""
    return timelines.timeline(results, "strategy")


def projection(results: Results) -> Figure:
    """Draw the projection to more ranks."""
    return projected.figure(results)


def _label(group: Group, shown: list[Group]) -> str:
    bucket = group.point["bucket_mib"]
    alike = [each for each in shown if each.point["strategy"] == group.point["strategy"]]
    others = [axis for axis in group.point if axis not in ("strategy", "bucket_mib")]
    more = where(group, alike) if any(len({each.point[axis] for each in alike}) > 1 for axis in others) else ""
    words = [axis_words(group.point["strategy"]), f"{bucket} MiB" if bucket and not more else "", more]
    return ", ".join(word for word in words if word)
