"""Tables: what an experiment's `tables.py` returns, and its three files.

`<name>.csv` holds raw numbers in SI units, `<name>.md` the same with readable units, and `<name>.json` both, with
warnings and records as values; whatever shows a table later is made from the JSON.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepbench.process.storage import write_atomically
from stepbench.reporting import marks, markup, units
from stepbench.reporting.columns import MARKS_OF_ROW, RECORDS, WARNINGS, Column, held_constant, value
from stepbench.reporting.marks import Mark
from stepbench.reporting.points import Row


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: its heading.
        caption: what was held constant and how to read it, a sentence or two of plain text.
        rows: raw values in SI units; a key ends with its unit (`_s`, `_bytes`, `_ratio`, …). `records` maps what a
            row's records are to their paths, and `warnings` holds its warnings.
        columns: what people see; all keys of the rows where there are none.
        empty: the sentence that stands in place of a table without rows.
        held: axes that the caption names where all rows share their value.
    """

    title: str
    caption: str
    rows: Sequence[Row]
    columns: Sequence[Column] = ()
    empty: str = "The grid has no cell for this table."
    held: Iterable[str] = ()


@dataclass(frozen=True)
class ShownRow:
    """One row: raw values, the Markdown of each column, warnings, and what its records are -> their paths.

    `keys` holds for each column the raw number that it is sorted by, or None where it is sorted by its text.
    """

    values: Mapping[str, Any]
    texts: Sequence[str]
    warnings: Sequence[Mark]
    records: Mapping[str, Sequence[str]]
    keys: Sequence[float | None] = ()


@dataclass(frozen=True)
class Shown:
    """A table as its JSON holds it.

    Attributes:
        title, caption, empty: as in `Table`.
        columns: `heading`, `unit`, `kind` (`number` or `text`) and `secondary` of each.
        rows: one for each row.
        legend: what the warnings in it mean.
        shared: heading and Markdown of each column whose text is the same in all rows; these are not in `columns`.
        axes: the keys of the rows that are axes of the experiment's cells.
    """

    title: str
    caption: str
    empty: str
    columns: Sequence[Mapping[str, Any]]
    rows: Sequence[ShownRow]
    legend: str = ""
    shared: Sequence[tuple[str, str]] = ()
    axes: Sequence[str] = ()


class _Noting(dict[str, Any]):
    """A row that notes the first number that a column's text is made from: a column is sorted by that."""

    first: float | None = None

    def __getitem__(self, key: str) -> Any:
        return self._note(super().__getitem__(key))

    def get(self, key: str, default: Any = None) -> Any:
        return self._note(super().get(key, default))

    def _note(self, found: Any) -> Any:
        if (
            self.first is None
            and isinstance(found, int | float)
            and not isinstance(found, bool)
            and math.isfinite(found)
        ):
            self.first = found
        return found


def show(table: Table, *, whole: bool = False) -> Shown:
    """Return a table with its texts; a `whole` one keeps the columns that are the same in all rows."""
    columns = list(table.columns) or [value(key, text=markup.escape) for key in _keys(table.rows) if key != RECORDS]
    cells = [[_cell(column, row) for row in table.rows] for column in columns]
    texts = [[text for text, _ in each] for each in cells]
    filled = [index for index, column in enumerate(columns) if not column.droppable or any(texts[index])]
    equal = [index for index in filled[1:] if len(texts[index]) > 1 and len(set(texts[index])) == 1 and not whole]
    kept = [index for index in filled if index not in equal]
    rows = [
        ShownRow(
            {key: _plain(found) for key, found in row.items() if key not in (RECORDS, MARKS_OF_ROW)},
            [texts[index][position] for index in kept],
            tuple(row.get(MARKS_OF_ROW, ())),
            row.get(RECORDS, {}),
            [cells[index][position][1] for index in kept],
        )
        for position, row in enumerate(table.rows)
    ]
    found = marks.legend(mark for row in rows for mark in row.warnings) if WARNINGS in columns else ""
    return Shown(
        table.title,
        " ".join(filter(None, (table.caption, held_constant(table.rows, table.held)))),
        table.empty,
        [
            {
                "heading": each.heading,
                "unit": each.unit,
                "kind": "number" if each.numeric else "text",
                "secondary": each.secondary,
            }
            for each in (columns[index] for index in kept)
        ],
        rows,
        f"Warnings: {found}." if found else "",
        [(columns[index].heading, _with_unit(texts[index][0], columns[index])) for index in equal],
    )


def _cell(column: Column, row: Row) -> tuple[str, float | None]:
    """Return a cell's Markdown and the number that it is sorted by."""
    noting = _Noting(row)
    text = column.text(noting)
    return text, None if text == units.NOTHING else noting.first


def _with_unit(text: str, column: Column) -> str:
    return f"{text} {column.unit}" if column.unit and text != units.NOTHING else text


def write(tables: Mapping[str, Table], root: Path, folder: str, axes: Sequence[str] = ()) -> None:
    """Write the three files of each table into `folder`, which is relative to `root` as the records' paths are.

    `axes` are those of the experiment's cells.
    """
    for name, table in tables.items():
        shown = dataclasses.replace(show(table), axes=axes)
        write_atomically(root / folder / f"{name}.csv", "".join(csv_lines(shown)))
        write_atomically(root / folder / f"{name}.md", markdown(shown, folder))
        text = json.dumps(dataclasses.asdict(shown), indent=1, allow_nan=False)
        write_atomically(root / folder / f"{name}.json", text + "\n")


def read(file: Path) -> Shown:
    """Return the table that `write` has put into a JSON file.

    Raises:
        FileNotFoundError: there is none.
    """
    return load(json.loads(file.read_text(encoding="utf-8")))


def load(content: Mapping[str, Any]) -> Shown:
    """Return the table of which `content` is the JSON."""
    rows = [ShownRow(**row | {"warnings": tuple(Mark(**mark) for mark in row["warnings"])}) for row in content["rows"]]
    return Shown(**{**content, "rows": rows, "shared": [(heading, text) for heading, text in content["shared"]]})


def markdown(table: Table | Shown, folder: str, level: int = 3, *, legend: bool = True) -> str:
    """Return a table as Markdown: a heading, the caption, the rows.

    Args:
        table: the table.
        folder: where the text lies, relative to the root; links to records begin there.
        level: of the heading.
        legend: whether it says what its warnings mean.
    """
    shown = show(table) if isinstance(table, Table) else table
    head = f"{'#' * level} {markup.escape(shown.title)}\n\n"
    if not shown.rows:
        return f"{head}{markup.escape(shown.empty)}\n"
    meaning = f"\n{markup.escape(shown.legend)}\n" if shown.legend and legend else ""
    return f"{head}{introduction(shown)}\n\n{_grid(shown, folder)}\n{meaning}"


def introduction(shown: Shown) -> str:
    """Return as Markdown what stands above the rows: the caption, and once what is the same in all of them."""
    known = [f"{heading} {text}" for heading, text in shown.shared if text not in ("", units.NOTHING)]
    unknown = [heading for heading, text in shown.shared if text in ("", units.NOTHING)]
    parts = [markup.escape(shown.caption)] if shown.caption else []
    parts += [f"In every row: {'; '.join(known)}."] if known else []
    parts += [f"Without a value in any row: {'; '.join(unknown)}."] if unknown else []
    return " ".join(parts).replace(markup.BREAK, ", ")


def _grid(shown: Shown, folder: str) -> str:
    headings = [heading_of(column) for column in shown.columns]
    rules = ["---:" if column["kind"] == "number" else ":---" for column in shown.columns]
    lines = [list(row.texts) for row in shown.rows]
    if any(row.records for row in shown.rows):
        headings.append("records")
        rules.append(":---")
        for line, row in zip(lines, shown.rows, strict=True):
            line.append(markup.records(row.records, folder))
    return "\n".join(f"| {' | '.join(line)} |" for line in [headings, rules, *lines])


def heading_of(column: Mapping[str, Any]) -> str:
    """Return the heading of a column of `Shown` with its unit, Markdown."""
    return f"{column['heading']} ({column['unit']})" if column["unit"] else column["heading"]


def csv_lines(shown: Shown) -> list[str]:
    """Return a table as CSV, its heading first: raw numbers in SI units, warnings, and the paths of its records."""
    lines = []
    for row in shown.rows:
        line = dict(row.values)
        if row.warnings or "quality" in line:
            line[MARKS_OF_ROW] = marks.text(row.warnings)
        if row.records:
            line[RECORDS] = " ".join(path for paths in row.records.values() for path in paths)
        lines.append(line)
    keys = _keys(lines)
    return [_csv_line(keys), *(_csv_line([line.get(key, "") for key in keys]) for line in lines)]


def _csv_line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _keys(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _plain(found: Any) -> Any:
    return None if isinstance(found, float) and not math.isfinite(found) else found
