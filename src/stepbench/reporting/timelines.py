"""The timeline of a step on several ranks: computation and communication of each rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepbench.reporting import figures, units
from stepbench.reporting.columns import held, variant
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group

COMPUTED = {
    "forward": figures.PALETTE[0],
    "backward": figures.PALETTE[4],
    "synchronization": "#d9d9d9",
    "optimizer": figures.PALETTE[2],
    "kernels": figures.PALETTE[0],
}
WORDS = {"synchronization": "waiting for gradients"}
COMMUNICATED = figures.PALETTE[1]
ROW_INCHES = 0.2
LANES = ("computation", "communication")


@figures.styled
def timeline(results: Results, axis: str) -> Figure:
    """Draw one step of each point that has numbers, two lines for each rank; `axis` names the strategy."""
    shown = [group for group in results.groups() if any(record.details.get("lanes") for record in group.records)]
    if not shown:
        return figures.nothing("No step on several ranks has been measured.")
    ranks = [len(_lanes(group)) for group in shown]
    unit = units.pick(units.SECONDS, [_end(group) for group in shown])
    heights = [2 * count * ROW_INCHES + 0.42 for count in ranks]
    figure = figures.new(0.95 + sum(heights), held(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, group in zip(panels, shown, strict=True):
        _draw(axes, _lanes(group), unit)
        axes.set_title(variant(group, shown, axis))
    panels[-1].set_xlabel(f"time since the step began on this rank ({unit.name})")
    panels[-1].set_xlim(0, 1.01 * max(_end(group) for group in shown) / unit.size)
    figures.legend_above(figure, 5)
    return figure


def _draw(axes: Axes, by_rank: Sequence[dict[str, Any]], unit: units.Unit) -> None:
    ticks = []
    for rank, lanes in enumerate(by_rank):
        for lane, name in enumerate(LANES):
            row = 2 * rank + lane
            ticks.append(f"rank {rank}" if lane == 0 else "network")
            for kind in dict.fromkeys(each for each, _, _ in lanes[name]):
                spans = [(a / unit.size, (b - a) / unit.size) for each, a, b in lanes[name] if each == kind]
                color = COMPUTED[kind] if lane == 0 else COMMUNICATED
                label = WORDS.get(kind, kind) if lane == 0 else "communication"
                edge = {"edgecolor": "white", "linewidth": 0.3} if lane else {"linewidth": 0}
                axes.broken_barh(spans, (row - 0.38, 0.76), facecolors=color, label=label, **edge)
    figures.rows(axes, ticks, fontsize=8)
    axes.tick_params(axis="y", length=0)


def _lanes(group: Group) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = next(
        record.details["lanes"] for record in group.records if record.details.get("lanes")
    )
    return found


def _end(group: Group) -> float:
    return max(end for lanes in _lanes(group) for spans in lanes.values() for _, _, end in spans)
