"""What tables are built from: the raw values of a row, and the columns that show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stepbench.reporting import marks, markup, units
from stepbench.reporting.marks import Mark
from stepbench.reporting.points import REPLICATE, Group, Row
from stepbench.reporting.statistics import Comparison, Summary
from stepbench.reporting.units import Unit

RECORDS = "records"  # what a row's records are -> their paths
MARKS_OF_ROW = "warnings"  # a tuple of Mark
EVIDENT = ("size", "passes", "precision", "optimizer")  # axes whose values say what they are
WORDS = {
    None: "none",
    "passes": "mode",
    "bucket_mib": "bucket MiB",
    "forward_backward": "forward + backward",
    "all_reduce": "all-reduce",
    "all_gather": "all-gather",
    "reduce_scatter": "reduce-scatter",
}


@dataclass(frozen=True)
class Column:
    """One column as people read it.

    Attributes:
        heading: Markdown.
        text: from a row of raw values to Markdown.
        unit: of every number in it, where they share one.
        numeric: whether it is aligned to the right.
        droppable: whether it is left out where it is empty in every row.
        secondary: whether the page folds it away first where a table is too wide.
    """

    heading: str
    text: Callable[[Row], str]
    unit: str = ""
    numeric: bool = True
    droppable: bool = False
    secondary: bool = False


# -- rows and columns --------------------------------------------------------------------------------------------------


def facts(group: Group, found: Iterable[Mark] = ()) -> dict[str, Any]:
    """Return what every row has: the point, its status, its warnings (its own and the point's), its records."""
    return {
        **group.point,
        "status": group.status,
        "reason": group.reason,
        **warned([*found, *group.marks]),
        RECORDS: {"": group.paths},
    }


def warned(found: Iterable[Mark]) -> dict[str, Any]:
    """Return the keys of a row that hold its warnings and the quality that follows from them."""
    unique = tuple(dict.fromkeys(found))
    return {MARKS_OF_ROW: unique, "quality": marks.quality(unique)}


def statistics_of(name: str, summary: Summary | None) -> dict[str, Any]:
    """Return a summary as the raw values of a row; None in each where there is no summary."""
    keys = ("mean", "std", "median", "low", "high", "iqr")
    found = {f"{name}_{key}_s": getattr(summary, key) if summary else None for key in keys}
    return found | {f"{name}_cv_ratio": summary.cv_ratio if summary else None}


def measured(group: Group, summaries: Mapping[str, Summary | None], whole: str) -> dict[str, Any]:
    """Return the facts of a point with the warnings of one of its summaries, `whole`, and the statistics of all."""
    above = summaries[whole]
    found = facts(group, above.marks if above else ())
    for name, summary in summaries.items():
        found |= statistics_of(name, summary)
    return found


def ratio_of(name: str, found: Comparison | None) -> dict[str, Any]:
    """Return the raw values that the column `ratio` shows; None in each where nothing was compared."""
    sides = {f"{name}_ratio": "ratio", f"{name}_low_ratio": "low", f"{name}_high_ratio": "high"}
    return {key: getattr(found, side) if found else None for key, side in sides.items()}


def value(name: str, heading: str | None = None, text: Callable[[Any], str] = str, **more: Any) -> Column:
    """Return a column that shows one raw value."""
    return Column(name.replace("_", " ") if heading is None else heading, lambda row: text(row[name]), **more)


def size() -> Column:
    """Return a column that shows a size, and below it its parameters where they are known."""

    def text(row: Row) -> str:
        count = f"{markup.BREAK}{units.count(row['parameters'])}" if row["parameters"] else ""
        return f"{markup.escape(row['size'])}{count}"

    return Column("size", text, numeric=False)


def word(name: str, heading: str | None = None, **more: Any) -> Column:
    """Return a column that shows one raw value as it is, a dash where there is none."""
    return value(name, heading, or_dash, numeric=False, **more)


def ratio(name: str, heading: str) -> Column:
    """Return a column that shows the ratio `<name>_ratio` of a row with its interval."""
    keys = (f"{name}_ratio", f"{name}_low_ratio", f"{name}_high_ratio")
    return Column(heading, lambda row: units.ratio(*(row[key] for key in keys)))


def time_unit(rows: Iterable[Row], names: Sequence[str]) -> Unit:
    """Return the unit that a table's times share: that of its shortest median."""
    return units.pick(units.SECONDS, [row.get(f"{name}_median_s") for row in rows for name in names])


def median(name: str, unit: Unit, heading: str | None = None) -> Column:
    """Return a column with the median alone, in as many digits as its interval leaves."""
    return Column(heading or name, lambda row: units.median(*_middle_of(name, row), per=unit.size), unit.name)


def interval(name: str, unit: Unit, heading: str | None = None) -> Column:
    """Return a column with the median and its interval."""
    return Column(heading or name, lambda row: middle(name, unit, row), unit.name)


def middle(name: str, unit: Unit, row: Row) -> str:
    """Return `median [low, high]` of a row's statistics."""
    return units.middle(*_middle_of(name, row), per=unit.size)


def _middle_of(name: str, row: Row) -> tuple[float | None, float | None, float | None]:
    return row[f"{name}_median_s"], row[f"{name}_low_s"], row[f"{name}_high_s"]


def or_dash(found: Any) -> str:
    """Return a value as a table shows it, a dash where there is none."""
    return units.NOTHING if found is None else markup.escape(found)


def _warnings_text(row: Row) -> str:
    found = row[MARKS_OF_ROW]
    return f"{marks.quality(found)}: {markup.escape(marks.text(found))}" if found else ""


def _status_text(row: Row) -> str:
    return markup.escape(row["status"]) + (f": {markup.escape(row['reason'])}" if row["reason"] else "")


WARNINGS = Column("quality: warnings", _warnings_text, numeric=False, droppable=True)
STATUS = Column("status", _status_text, numeric=False)


# -- axes --------------------------------------------------------------------------------------------------------------


def rest(axes: Iterable[str], *named: str) -> list[str]:
    """Return the axes of an experiment without its replicate and those that have columns of their own."""
    return [axis for axis in axes if axis not in (*named, REPLICATE)]


def axis_columns(rows: Sequence[Row], axes: Iterable[str]) -> list[Column]:
    """Return a column for each axis whose value differs between rows."""
    return [value(axis, axis_words(axis), axis_text, numeric=False) for axis in varying(rows, axes)]


def varying(rows: Sequence[Row], axes: Iterable[str]) -> list[str]:
    """Return the axes whose value differs between rows or points."""
    return [axis for axis in axes if len({row[axis] for row in rows}) > 1]


class Placed(Protocol):
    """What has a point of a grid."""

    @property
    def point(self) -> dict[str, Any]:
        """Axis -> value."""


def differences(placed: Placed, shown: Iterable[Placed], *unnamed: str) -> str:
    """Return how a point differs from others, such as `nano, context 64`; nothing where it does not.

    Args:
        placed: the point.
        shown: all points that are named so, this one among them.
        *unnamed: axes that the reader knows already.
    """
    point = placed.point
    named = [axis for axis in varying([each.point for each in shown], point) if axis not in unnamed]
    words = ((() if axis in EVIDENT else (axis_words(axis),)) + (axis_words(point[axis]),) for axis in named)
    return ", ".join(" ".join(each) for each in words)


def where(placed: Placed, shown: Iterable[Placed], *unnamed: str) -> str:
    """Return a point's size, if it has one, and how it differs from others otherwise; see `differences`."""
    size = str(placed.point.get("size", ""))
    return ", ".join(filter(None, (size, differences(placed, shown, "size", *unnamed))))


def variant(placed: Placed, shown: Iterable[Placed], axis: str, *unnamed: str) -> str:
    """Return a point's value of one axis and, in brackets, how it differs from others with that value."""
    alike = [each for each in shown if each.point[axis] == placed.point[axis]]
    more = differences(placed, alike, *unnamed)
    return f"{axis_words(placed.point[axis])}{f' ({more})' if more else ''}"


def held_constant(rows: Sequence[Row], axes: Iterable[str]) -> str:
    """Return a sentence that names the axes whose value all rows share, or nothing."""
    same = [
        f"{axis_words(axis)} {axis_words(rows[0][axis])}"
        for axis in axes
        if rows and len({row[axis] for row in rows}) == 1
    ]
    return f"Held constant: {', '.join(same)}." if same else ""


def held(shown: Sequence[Placed], *without: str) -> str:
    """Return the sentence of `held_constant` about points, as far as all of them have the axes."""
    shared = [axis for axis in (shown[0].point if shown else ()) if all(axis in each.point for each in shown)]
    return held_constant([each.point for each in shown], [axis for axis in shared if axis not in without])


def axis_text(found: Any) -> str:
    """Return an axis' value as a table shows it."""
    return markup.escape(axis_words(found))


def axis_words(found: Any) -> str:
    """Return an axis' name or value in words."""
    return WORDS[found] if found in WORDS else str(found).replace("_", " ")
