"""Public leaderboards: what others have published, beside what is predicted and what this machine measured."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from stepbench.reporting import columns as col
from stepbench.reporting import markup, units
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group, Row
from stepbench.reporting.tables import Table

PUBLISHED, PREDICTED, MEASURED = "published", "predicted", "measured"


def read(file: str) -> dict[str, Any]:
    """Return a leaderboard: `source`, `date`, `devices`, `shape` (axis -> value) and `entries`.

    Args:
        file: its path in the package.
    """
    text = importlib.resources.files("stepbench").joinpath(file).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def groups(board: Mapping[str, Any], results: Results) -> list[Group]:
    """Return the points of the grid that have the leaderboard's shape."""
    return [group for group in results.groups() if group.point.items() >= board["shape"].items()]


def published(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each entry."""
    return [
        _row(each["entry"], PUBLISHED, each["seconds"], "verified" if each["verified"] else "not verified")
        for each in board["entries"]
    ]


def predicted(entry: str, seconds: float | None, note: str, group: Group | None = None) -> dict[str, Any]:
    """Return a row of a time that nobody measured; `group` is the point that it rests on, if any."""
    more = {} if group is None else {col.RECORDS: {"": group.paths}}
    return _row(entry, PREDICTED, seconds, note) | more


def measured(group: Group, key: str, shown: Sequence[Group]) -> dict[str, Any]:
    """Return a row of this machine's own time, the samples `key`."""
    summary = group.summary(key)
    varying = {axis for axis in group.point if len({each.point[axis] for each in shown}) > 1}
    name = ", ".join(col.axis_words(group.point[axis]) for axis in group.point if axis in varying)
    return {
        **_row(name or "this machine", MEASURED, None, ""),
        **col.facts(group, summary.marks if summary else ()),
        **col.statistics_of("time", summary),
    }


def table(board: Mapping[str, Any], rows: Sequence[Row], *, title: str, caption: str) -> Table:
    """Return the rows, the fastest first, those without a time last."""
    ordered = sorted(rows, key=lambda row: (row["time_median_s"] is None, row["time_median_s"]))
    unit = col.time_unit(ordered, ["time"])
    columns = [
        col.word("entry"),
        col.word("kind"),
        col.interval("time", unit, "time"),
        col.word("note"),
        col.WARNINGS,
        col.Column("status", lambda row: markup.escape(row["status"] or ""), numeric=False, droppable=True),
    ]
    return Table(
        title, f"Published on {board['devices']}: {board['source']} ({board['date']}). {caption}", ordered, columns
    )


def _row(entry: str, kind: str, seconds: float | None, note: str) -> dict[str, Any]:
    return {
        "entry": entry,
        "kind": kind,
        "note": note or units.NOTHING,
        **dict.fromkeys(col.statistics_of("time", None)),
        "time_median_s": seconds,
        "status": None,
        "reason": None,
        **col.warned([]),
        col.RECORDS: {},
    }
