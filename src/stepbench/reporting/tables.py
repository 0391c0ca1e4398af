"""Tables: raw numbers in SI units in a .csv, the same numbers with readable units in a .md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stepbench.process.storage import write_atomically
from stepbench.reporting import marks as marks_module
from stepbench.reporting import markup, units
from stepbench.reporting.frames import Group

RECORDS = "records"  # the column of paths that makes a row's links
TO_MACHINE = "../.."  # from results/<machine>/tables/<experiment>/ to results/<machine>/

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column as people read it.

    Attributes:
        heading: its heading, Markdown.
        text: from a row of raw values to Markdown.
        numeric: whether it is set to the right.
        droppable: whether it is left out where no row has anything in it.
    """

    heading: str
    text: Callable[[Row], str]
    numeric: bool = True
    droppable: bool = False


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: the stem of its files, one of the experiment's `table_names`.
        title: its heading.
        caption: what was held constant and how to read it, a sentence or two of plain text.
        frame: raw values in SI units; a column's name ends with its unit (`_s`, `_bytes`, `_ratio`, …). The column
            `records`, if there is one, maps what a row's records are to their paths; every row then links to them.
        columns: what people see; the frame's own columns where there are none.
        empty: the sentence that stands in place of a table without rows.
    """

    name: str
    title: str
    caption: str
    frame: pd.DataFrame
    columns: Sequence[Column] = ()
    empty: str = "The grid has no cells for this table."

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The frame's rows; what is missing is None."""
        rows = self.frame.astype(object).where(self.frame.notna(), None).to_dict("records")
        return [{str(key): value for key, value in row.items()} for row in rows]


def write(tables: Iterable[Table], folder: Path) -> None:
    """Write `<name>.csv` and `<name>.md` of each table into `folder`, results/<machine>/tables/<experiment>."""
    for table in tables:
        frame = table.frame
        if RECORDS in frame:
            joined = [" ".join(path for paths in found.values() for path in paths) for found in frame[RECORDS]]
            frame = frame.assign(**{RECORDS: joined})
        write_atomically(folder / f"{table.name}.csv", frame.to_csv(index=False, lineterminator="\n"))
        write_atomically(folder / f"{table.name}.md", markdown(table))


def markdown(table: Table) -> str:
    """Return the table as Markdown: a heading, the caption, the rows."""
    head = f"### {markup.escape(table.title)}\n\n"
    if table.frame.empty:
        return f"{head}{markup.escape(table.empty)}\n"
    return f"{head}{markup.escape(table.caption)}\n\n{_grid(table)}\n{_legend(table)}"


def frame(rows: Sequence[Row], columns: Sequence[str] = ()) -> pd.DataFrame:
    """Return a frame of objects, so that a whole number stays one; `columns` name those of a frame without rows."""
    return pd.DataFrame(list(rows), columns=None if rows else list(columns), dtype=object)


def facts(group: Group, marks: Iterable[object] = ()) -> dict[str, Any]:
    """Return the columns that every row has: the point, what became of it, its marks and its records."""
    unique = dict.fromkeys(str(mark) for mark in (*marks, *group.marks))
    return {
        **group.point,
        "status": group.status,
        "reason": group.reason,
        "marks": "; ".join(unique),
        "grade": marks_module.grade(marks_module.kinds_in("; ".join(unique))),
        RECORDS: {"": group.paths},
    }


STATUS = Column(
    "status",
    lambda row: markup.escape(row["status"]) + (f": {markup.escape(row['reason'])}" if row["reason"] else ""),
    numeric=False,
)


def _graded(row: Row) -> str:
    found = row["marks"]
    return f"{marks_module.grade(marks_module.kinds_in(found))}: {markup.escape(found)}" if found else ""


MARKS = Column("marks", _graded, numeric=False, droppable=True)


def value(name: str, heading: str | None = None, text: Callable[[Any], str] = str, **more: bool) -> Column:
    """Return a column that shows one raw value."""
    return Column(heading or name, lambda row: text(row[name]), **more)


def or_dash(found: Any) -> str:
    """Return a word as a table shows it, and a dash where there is none."""
    return units.NOTHING if found is None else markup.escape(found)


def axis_columns(rows: Sequence[Row], axes: Iterable[str]) -> list[Column]:
    """Return a column for each axis whose value differs between rows."""
    return [value(axis, text=axis_text, numeric=False) for axis in axes if len({row[axis] for row in rows}) > 1]


def held_constant(rows: Sequence[Row], axes: Iterable[str]) -> str:
    """Return a sentence that names the axes whose value all rows share, or nothing."""
    same = [f"{axis} {axis_words(rows[0][axis])}" for axis in axes if rows and len({row[axis] for row in rows}) == 1]
    return f"Held constant: {', '.join(same)}." if same else ""


def axis_text(found: Any) -> str:
    """Return an axis' value as a table shows it."""
    return markup.escape(axis_words(found))


def axis_words(found: Any) -> str:
    """Return an axis' value in words."""
    return "none" if found is None else str(found).replace("forward_backward", "forward + backward").replace("_", " ")


def _legend(table: Table) -> str:
    """Return what the marks mean that the table shows, and nothing where it shows none."""
    shown = [row["marks"] for row in table.rows if row.get("marks")] if MARKS in table.columns else []
    kinds = {kind for text in shown for kind in marks_module.kinds_in(text)}
    return f"\n{markup.escape(f'Marks: {marks_module.legend(kinds)}.')}\n" if kinds else ""


def _grid(table: Table) -> str:
    rows = table.rows
    columns = list(table.columns) or [value(str(name), text=markup.escape) for name in table.frame if name != RECORDS]
    texts = [[column.text(row) for row in rows] for column in columns]
    kept = [index for index, column in enumerate(columns) if not column.droppable or any(texts[index])]
    headings = [columns[index].heading for index in kept]
    rules = ["---:" if columns[index].numeric else ":---" for index in kept]
    lines = [[texts[index][position] for index in kept] for position in range(len(rows))]
    if RECORDS in table.frame:
        headings.append("records")
        rules.append(":---")
        for line, row in zip(lines, rows, strict=True):
            line.append(markup.records(row[RECORDS], beside=TO_MACHINE))
    return "\n".join(f"| {' | '.join(line)} |" for line in [headings, rules, *lines])
