"""The figure of sharding: bytes per rank by category."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepbench.measure.memory_timeline import CATEGORIES
from stepbench.reporting import drawing, figures, units
from stepbench.reporting.columns import axis_words, held, variant
from stepbench.reporting.figures import CATEGORY_COLORS
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group
from stepbench.reporting.sharding_tables import SOURCE, VARIANT, prefix, replicated

ROW_INCHES = 0.34


@figures.styled
def memory(results: Results) -> Figure:
    """Draw a bar for each variant: the bytes of the rank at the peak of a step, by category."""
    shown = [group for group in results.groups() if _peak(group) is not None]
    for group in list(shown):
        other = replicated(group, results)
        if other is not None and other not in shown and _peak(other) is not None:
            shown.insert(0, other)
    if not shown:
        return figures.nothing("No variant's memory has been predicted or measured.")
    shown.sort(key=lambda group: (group.point[SOURCE], str(group.point["size"])))
    unit = units.pick(units.BYTES, [_peak(group) for group in shown])
    figure = figures.new(1.05 + ROW_INCHES * len(shown), held(shown, VARIANT, SOURCE))
    axes = figure.subplots()
    for position, group in enumerate(shown):
        _draw(axes, position, group, unit)
    figures.rows(axes, [_label(group, shown) for group in shown])
    axes.set_xlim(0, 1.12 * max(_peak(group) or 0 for group in shown) / unit.size)
    axes.set_xlabel(f"bytes per rank at the peak of a step ({unit.name})")
    figures.legend_above(figure, len(CATEGORIES))
    return figure


def _draw(axes: Axes, position: int, group: Group, unit: units.Unit) -> None:
    left = 0.0
    for category in CATEGORIES:
        part = (group.scalar(f"{prefix(group)}peak_{category}_bytes") or 0) / unit.size
        style: Any = {"height": 0.66, "color": CATEGORY_COLORS[category], "label": axis_words(category)}
        (bar,) = axes.barh(position, part, left=left, **style)
        drawing.tell(bar, group, units.byte_count(part * unit.size), axis_words(category))
        left += part
    text = f" {units.byte_count(_peak(group))}"
    axes.text(left, position, text, va="center", fontsize=8.5, color=figures.MUTED)


def _peak(group: Group) -> int | None:
    found: int | None = group.scalar(f"{prefix(group)}peak_memory_bytes")
    return found


def _label(group: Group, shown: list[Group]) -> str:
    return f"{variant(group, shown, VARIANT, SOURCE)}{', predicted' if prefix(group) else ''}"
