"""A table of the page: it can be sorted, filtered, folded and downloaded, and each row leads to its records."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepbench.reporting import tables
from stepbench.reporting.columns import axis_words
from stepbench.reporting.embedded import Embedded
from stepbench.reporting.tables import Shown, ShownRow

# Beginnings of headings.
LAST_TO_FOLD = (
    "context", "whole step", "fastest way", "speed over", "verdict", "ratio", "tokens/s", "MFU", "quality", "status",
)  # fmt: skip
LONG_CELL = 36  # characters from which on a cell breaks its line
MOST_VALUES = 12  # of a filter
FEWEST_ROWS = 4  # of a table that has filters
PORTRAIT, LANDSCAPE = 165, 230  # characters in a line of a printed page; a wider table prints row by row
TURNED_ROWS = 12  # from which on a table is worth a page of its own that is turned
ICON = (
    '<svg class="icon" viewBox="0 0 12 14" aria-hidden="true"><path d="M1 .5h6.5L11 4v9.5H1z M7.5 .5V4H11 '
    'M3 6.5h6 M3 8.5h6 M3 10.5h4"/></svg>'
)


def render(
    shown: Shown, name: str, embedded: Embedded, inline: Callable[[str], str], link: Callable[[str], str]
) -> str:
    """Return the HTML of a table's rows.

    Args:
        shown: the table; it has rows.
        name: unique on the page; row i has the id `<name>-<i>`.
        embedded: takes the records that the rows rest on, and the table as CSV.
        inline: from a cell's Markdown to HTML.
        link: from a record's path to a link for those who read the page without its script.
    """
    embedded.tables[name] = tables.csv_lines(shown)
    headings = [tables.heading_of(column) for column in shown.columns]
    filters = filters_of(shown)
    has_records = any(row.records for row in shown.rows)
    cells = [_heading(column, inline(heading)) for column, heading in zip(shown.columns, headings, strict=True)]
    cells += ['<th class="record" scope="col">record</th>'] if has_records else []
    lines = [
        f'<div class="table {_paper(shown)}" id="{name}" data-filters="{_json({k: axis_words(k) for k in filters})}" '
        f'data-fold="{" ".join(map(str, folding(shown)))}" '
        f'data-secondary="{" ".join(str(i) for i, each in enumerate(shown.columns) if each.get("secondary"))}">',
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_escape(shown.title)}">',
        f"<table><thead><tr>{''.join(cells)}</tr></thead><tbody>",
    ]
    labels = [_escape(_plain(inline(heading))) for heading in headings]
    for index, row in enumerate(shown.rows):
        parts = [
            _cell(position, column, inline(text), key, label)
            for position, (column, text, key, label) in enumerate(
                zip(shown.columns, row.texts, _keys(row), labels, strict=True)
            )
        ]
        parts += [f'<td class="record" data-label="record">{_records(row, embedded, link)}</td>'] if has_records else []
        values = {key: axis_words(row.values[key]) for key in filters}
        lines.append(f'<tr id="{name}-{index}" data-values="{_json(values)}">{"".join(parts)}</tr>')
    return "\n".join([*lines, "</tbody></table></div></div>\n"])


def rows_of(shown: Shown, name: str) -> dict[frozenset[str], str]:
    """Return the records of each row -> the row's id; of rows with the same records, the first."""
    found: dict[frozenset[str], str] = {}
    for index, row in enumerate(shown.rows):
        found.setdefault(frozenset(path for paths in row.records.values() for path in paths), f"{name}-{index}")
    found.pop(frozenset(), None)
    return found


def filters_of(shown: Shown) -> list[str]:
    """Return the keys of the rows by which they can be filtered: what every row has, in a few different words."""
    rows = shown.rows
    if len(rows) < FEWEST_ROWS:
        return []
    found = []
    for key in rows[0].values:
        if any(key not in row.values for row in rows):  # rows of two experiments have different axes
            continue
        values = {row.values[key] for row in rows if not isinstance(row.values[key], list | dict)}
        named = all(isinstance(value, str | bool | None) for value in values) or key in shown.axes
        if named and 2 <= len(values) <= min(MOST_VALUES, len(rows) - 1) and key not in ("reason", "interval", "why"):
            found.append(key)
    return found


def folding(shown: Shown) -> list[int]:
    """Return the places of the columns in the order in which they are folded away where the table is too wide."""
    places = range(len(shown.columns) - 1, 0, -1)  # the first one stays

    def order(place: int) -> int:
        column = shown.columns[place]
        if column.get("secondary"):
            return 0
        return 2 if str(column["heading"]).startswith(LAST_TO_FOLD) else 1

    return sorted(places, key=order)


def _heading(column: Mapping[str, Any], text: str) -> str:
    kind = ' class="number"' if column["kind"] == "number" else ""
    return f'<th scope="col"{kind}>{text}</th>'


def _cell(position: int, column: Mapping[str, Any], text: str, key: float | None, label: str) -> str:
    kinds = [column["kind"]] if column["kind"] == "number" else []
    kinds += ["long"] if max(map(len, text.split("<br"))) > LONG_CELL else []
    attributes = f' class="{" ".join(kinds)}"' if kinds else ""
    attributes += f' data-sort="{key:.9g}"' if key is not None else ""
    attributes += f' data-label="{label}"'
    return f'<th scope="row"{attributes}>{text}</th>' if position == 0 else f"<td{attributes}>{text}</td>"


def _records(row: ShownRow, embedded: Embedded, link: Callable[[str], str]) -> str:
    paths = [(what, path) for what, each in row.records.items() for path in each]
    numbers = embedded.numbers(path for _, path in paths)
    found = []
    for place, ((what, path), number) in enumerate(zip(paths, numbers, strict=True)):
        said = _escape(" ".join(filter(None, ("record", what, f"{place + 1} of {len(paths)}" if place else ""))))
        text = ICON if place == 0 else str(place + 1)
        found.append(
            f'<a href="{html.escape(link(path))}" data-record="{number}" aria-label="{said}" title="{said}">{text}</a>'
        )
    return " ".join(found)


def _paper(shown: Shown) -> str:
    """Return how a table fits a printed page: upright, across, or row by row."""
    width = sum(
        max(
            max((len(line) for row in shown.rows for line in row.texts[place].split("<br>")), default=0),
            max(map(len, str(tables.heading_of(column)).split()), default=0),
        )
        + 2
        for place, column in enumerate(shown.columns)
    )
    if width <= PORTRAIT:
        return "upright" if width <= 0.75 * PORTRAIT else "upright dense"
    return "across" if width <= LANDSCAPE and len(shown.rows) >= TURNED_ROWS else "stacked"


def _keys(row: ShownRow) -> Sequence[float | None]:
    return row.keys or [None] * len(row.texts)


def _plain(text: str) -> str:
    return html.unescape(text.replace("<br />", " ").replace("<br>", " "))


def _escape(text: str) -> str:
    return html.escape(text)


def _json(content: Mapping[str, Any]) -> str:
    return html.escape(json.dumps(content, ensure_ascii=False))
