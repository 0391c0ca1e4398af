"""The figure of fits: the predicted peak over the batch, with the memory of cards."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepbench.experiments.fits import ways
from stepbench.experiments.fits.ways import CONTEXT
from stepbench.reporting import figures
from stepbench.reporting.columns import varying
from stepbench.reporting.frames import Results

BATCHES = tuple(2**power for power in range(9))
TITLE_CHARACTERS = 30  # of a line above a panel
GAP = 0.052  # of the axes' height between two names


@figures.styled
def batches(results: Results) -> Figure:
    """Draw the predicted peak of each model over the batch, a panel for each way to train."""
    found = ways.predicted(results)
    if not found:
        return figures.nothing(figures.NO_NUMBERS)
    axes_shown = varying([way.group.point for way in found], ways.AXES)
    kinds: dict[str, list[ways.Way]] = {}
    for way in found:
        point = way.group.point
        name = ", ".join(f"{axis.replace('_', ' ')} {point[axis]}" for axis in axes_shown) or "one way to train"
        kinds.setdefault(name, []).append(way)
    columns = min(2, len(kinds))
    rows = -(-len(kinds) // columns)
    of_one = ", of one rank where there are several" if any(way.group.point["ranks"] > 1 for way in found) else ""
    figure = figures.new(0.6 + 3.0 * rows, f"Predicted peak of a training step at context {CONTEXT}{of_one}.")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    sizes = list(dict.fromkeys(str(way.group.point["size"]) for way in found))
    cards = ways.cards(results.settings)
    for axes, (name, members) in zip(panels, kinds.items(), strict=False):
        axes.set_title(textwrap.fill(name, TITLE_CHARACTERS))
        for way in members:
            index = sizes.index(str(way.group.point["size"]))
            peaks = [way.envelope.peak_bytes(batch, CONTEXT) / ways.GIB for batch in BATCHES]
            axes.plot(BATCHES, peaks, color=figures.PALETTE[index % len(figures.PALETTE)], label=sizes[index])
        figures.log_axis(axes, "x")
        axes.set_xticks(BATCHES[::2], [str(batch) for batch in BATCHES[::2]])
        axes.set_xticks([], minor=True)
    panels[0].set_yscale("log")  # all share it
    _end_above(panels[0], cards)
    figures.log_axis(panels[0], "y")
    for place, axes in enumerate(panels[: len(kinds)]):
        _draw_cards(axes, cards, named=place % columns == columns - 1 or place == len(kinds) - 1)
        axes.set_xlabel("batch")
        axes.set_ylabel("predicted peak (GiB)" if place % columns == 0 else "")
    for axes in panels[len(kinds) :]:
        axes.set_visible(False)
    figures.legend_above(figure, len(sizes))
    return figure


def _end_above(axes: Axes, cards: Mapping[str, int]) -> None:
    """End the axis a little above the largest card: how much more than that a batch would need is of no use."""
    if cards:
        low, high = axes.get_ylim()
        axes.set_ylim(low, min(high, 1.6 * max(cards.values()) / ways.GIB))


def _draw_cards(axes: Axes, cards: Mapping[str, int], *, named: bool) -> None:
    """Draw a dotted line for each card, and beside the axes its name, moved where it would cover another one."""
    low, high = (math.log(limit) for limit in axes.get_ylim())
    heights = [(math.log(memory_bytes / ways.GIB) - low) / (high - low) for memory_bytes in cards.values()]
    for (name, memory_bytes), height in zip(cards.items(), _spread(heights), strict=True):
        axes.axhline(memory_bytes / ways.GIB, color=figures.MUTED, linewidth=0.6, linestyle=":")
        if named:
            style: dict[str, Any] = {"fontsize": 7, "color": figures.MUTED, "va": "center"}
            axes.text(1.02, height, name, transform=axes.transAxes, **style)


def _spread(heights: Sequence[float]) -> list[float]:
    """Return ascending heights with at least `GAP` between them, each as near to its own as the lower ones allow."""
    found: list[float] = []
    for place, height in enumerate(heights):
        lowest = found[-1] + GAP if found else -math.inf
        # Half of the room that the names above lack is taken below.
        lacking = max((i * GAP - (above - height) for i, above in enumerate(heights[place:])), default=0.0)
        found.append(max(lowest, height - max(0.0, lacking) / 2))
    return found
