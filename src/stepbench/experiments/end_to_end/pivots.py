"""Values of one axis side by side: one row for each point, one column for each value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepbench.reporting import markup, statistics, units
from stepbench.reporting.frames import Group
from stepbench.reporting.tables import (
    MARKS,
    RECORDS,
    Column,
    Row,
    Table,
    axis_columns,
    axis_text,
    axis_words,
    frame,
    held_constant,
)


def table(
    groups: Sequence[Group], axis: str, values: Sequence[str], *, name: str, title: str, caption: str, empty: str
) -> Table:
    """Return a table of whole steps with a column for each value of `axis`, and how each compares with the one before.

    Points that are configured for one of the values alone are left out: nothing stands beside them.

    Args:
        groups: the points.
        axis: the axis to lay out.
        values: its values, in the order of the columns.
        name: the table's name.
        title: its heading.
        caption: what it shows.
        empty: what to say where no point is configured for two values.
    """
    by_point: dict[tuple[Any, ...], dict[str, Group]] = {}
    for group in groups:
        point = tuple((key, value) for key, value in group.point.items() if key != axis)
        by_point.setdefault(point, {})[group.point[axis]] = group
    found = [(dict(point), sides) for point, sides in by_point.items() if len(sides) > 1]
    if not found:
        return Table(name, title, caption, frame([]), empty=empty)
    rows = [_row(point, sides, values) for point, sides in found]
    unit = units.pick(units.SECONDS, [row[f"{value}_median_s"] for row in rows for value in values])
    axes = list(found[0][0])
    columns = [*axis_columns(rows, axes)]
    for before, value in zip([None, *values], values, strict=False):
        columns.append(_time_column(value, unit))
        if before is not None:
            columns.append(_ratio_column(before, value))
    told = " ".join(part for part in (caption, held_constant(rows, axes)) if part)
    return Table(name, title, told, frame(rows), [*columns, MARKS], empty)


def _row(point: dict[str, Any], sides: dict[str, Group], values: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = dict(point)
    marks = []
    for before, value in zip([None, *values], values, strict=False):
        group = sides.get(value)
        summary = group.summary("step_s") if group else None
        for part in ("median", "low", "high"):
            row[f"{value}_{part}_s"] = getattr(summary, part) if summary else None
        row[f"{value}_status"] = group.status if group else "not in the grid"
        row[f"{value}_reason"] = group.reason if group else ""
        marks += [f"{value} {mark}" for mark in summary.marks] if summary else []
        if before is not None:
            row |= _ratio(sides.get(value), sides.get(before), f"{value}_over_{before}")
    row["marks"] = "; ".join(marks)
    row[RECORDS] = {axis_words(value): sides[value].paths for value in values if value in sides}
    return row


def _ratio(above: Group | None, below: Group | None, name: str) -> dict[str, Any]:
    sides = [statistics.medians(group.processes("step_s")) if group else [] for group in (above, below)]
    found = statistics.compare(*sides) if all(sides) else None
    return {
        f"{name}_ratio": found.ratio if found else None,
        f"{name}_low_ratio": found.low if found else None,
        f"{name}_high_ratio": found.high if found else None,
    }


def _time_column(value: str, unit: units.Unit) -> Column:
    def text(row: Row) -> str:
        if row[f"{value}_median_s"] is None:
            reason = row[f"{value}_reason"]
            return markup.escape(row[f"{value}_status"]) + (f": {markup.escape(reason)}" if reason else "")
        return units.middle(*(row[f"{value}_{part}_s"] for part in ("median", "low", "high")), per=unit.size)

    return Column(f"{axis_text(value)} ({unit.name})", text)


def _ratio_column(before: str, value: str) -> Column:
    name = f"{value}_over_{before}"
    heading = f"over {axis_text(before)}"
    return Column(heading, lambda row: units.ratio(*(row[f"{name}_{part}ratio"] for part in ("", "low_", "high_"))))
