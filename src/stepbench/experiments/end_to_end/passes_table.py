"""The passes side by side: one row for each point, one column for each kind of pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepbench.reporting import columns as col
from stepbench.reporting import marks, markup, units
from stepbench.reporting.points import Group, Row, compared
from stepbench.reporting.tables import Table

PASSES = ("forward", "forward_backward", "train_step")
BEFORE = dict(zip(PASSES, (None, *PASSES), strict=False))


def table(groups: Sequence[Group], *, title: str, caption: str, empty: str) -> Table:
    """Return a table of whole steps with a column for each kind of pass, and its ratio to the one before.

    Points with one kind of pass alone are left out: there is nothing beside them.

    Args:
        groups: the points.
        title: its heading.
        caption: what it shows.
        empty: what to say where no point has two kinds of pass.
    """
    by_point: dict[tuple[Any, ...], dict[str, Group]] = {}
    for group in groups:
        point = tuple((key, found) for key, found in group.point.items() if key != "passes")
        by_point.setdefault(point, {})[group.point["passes"]] = group
    found = [(dict(point), sides) for point, sides in by_point.items() if len(sides) > 1]
    if not found:
        return Table(title, caption, [], empty=empty)
    rows = [_row(point, sides) for point, sides in found]
    unit = col.time_unit(rows, PASSES)
    axes = list(found[0][0])
    columns = [*col.axis_columns(rows, axes)]
    for each, before in BEFORE.items():
        columns.append(_time_column(each, unit))
        if before is not None:
            columns.append(col.ratio(f"{each}_over_{before}", f"over {col.axis_text(before)}"))
    return Table(title, caption, rows, [*columns, col.WARNINGS], empty, axes)


def _row(point: dict[str, Any], sides: dict[str, Group]) -> dict[str, Any]:
    row: dict[str, Any] = dict(point)
    found = []
    for each, before in BEFORE.items():
        group = sides.get(each)
        summary = group.summary("step_s") if group else None
        for part in ("median", "low", "high"):
            row[f"{each}_{part}_s"] = getattr(summary, part) if summary else None
        row[f"{each}_status"] = group.status if group else "not in the grid"
        row[f"{each}_reason"] = group.reason if group else ""
        found += marks.about(col.axis_words(each), summary.marks) if summary else []
        if before is not None:
            # A comparison is of speeds, so that this is the time of a pass over that of the one before.
            row |= col.ratio_of(f"{each}_over_{before}", compared(group, sides.get(before), "step_s"))
    return {
        **row,
        **col.warned(found),
        col.RECORDS: {col.axis_words(each): sides[each].paths for each in PASSES if each in sides},
    }


def _time_column(name: str, unit: units.Unit) -> col.Column:
    def text(row: Row) -> str:
        if row[f"{name}_median_s"] is None:
            reason = row[f"{name}_reason"]
            return markup.escape(row[f"{name}_status"]) + (f": {markup.escape(reason)}" if reason else "")
        return col.middle(name, unit, row)

    return col.Column(col.axis_text(name), text, unit.name)
