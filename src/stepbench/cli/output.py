"""What commands print, and their exit status."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepbench.pipeline.bench import Bench

if TYPE_CHECKING:
    from stepbench.reporting.marks import Mark
    from stepbench.reporting.tables import Shown

FAILED_EXIT_CODE = 1
USAGE_EXIT_CODE = 2

console = Console(highlight=False, soft_wrap=True)

_STYLES = {"fresh": "green", "stale": "yellow", "missing": "dim", "failed": "red"}


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """Let a command take other configuration files and settings, as Snakemake does."""
    more: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--configfile", type=Path, metavar="FILE", help="merged over config.yaml; repeatable", **more)
    parser.add_argument("--config", metavar="KEY=VALUE", help="merged over all files, YAML; repeatable", **more)


def open_bench(options: argparse.Namespace) -> Bench:
    """Return the bench that `--root`, `--configfile` and `--config` ask for.

    Raises:
        ValueError: one of them cannot be used; one line per mistake.
    """
    return Bench.open(options.root, files=options.configfile, settings=dict(map(setting, options.config)))


def setting(text: str, what: str = "`--config`") -> tuple[str, Any]:
    """Return key and value of a KEY=VALUE, whose value is YAML.

    Raises:
        ValueError: it is none; the message begins with `what`.
    """
    key, equals, value = text.partition("=")
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        equals = ""
    if not (key and equals):
        raise ValueError(f"{what} must be KEY=VALUE with a value in YAML, got {text!r}")
    return key, found


def add_format(parser: argparse.ArgumentParser) -> None:
    """Let a command print its tables as JSON or CSV: numbers in SI units, everything else to standard error."""
    formats = parser.add_mutually_exclusive_group()
    for name in ("json", "csv"):
        formats.add_argument(
            f"--{name}", dest="format", action="store_const", const=name, help=f"print {name.upper()}, in SI units"
        )


def row_of(
    path: str, state: str, reasons: Sequence[str] = (), quality: str | None = None, warnings: Sequence[Mark] = ()
) -> dict[str, Any]:
    """Return what is printed of a cell."""
    return {
        "path": path,
        "state": state,
        "quality": quality,
        "warnings": "; ".join(map(str, warnings)),
        "reasons": list(reasons),
    }


def print_cell(
    path: str, state: str, reasons: Sequence[str] = (), quality: str | None = None, warnings: str = ""
) -> None:
    """Print a cell's path, the state of its record, the quality of its numbers, and why, in one line."""
    console.print(path, end="  ", markup=False)
    console.print(state, style=_STYLES[state], end="")
    told = [f"quality {quality}{f': {warnings}' if warnings else ''}"] if quality is not None else []
    console.print("".join(f"  {each}" for each in (*told, "; ".join(reasons)) if each), markup=False)


def print_rows(rows: Sequence[Mapping[str, Any]], format_: str) -> None:
    """Print rows as one JSON list, or as CSV, where a list becomes one text."""
    if format_ == "json":
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    keys = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(sys.stdout, keys, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        joined = {key: "; ".join(map(str, each)) for key, each in row.items() if isinstance(each, list | tuple)}
        writer.writerow({**row, **joined})


def print_tables(shown: Sequence[Shown], format_: str | None) -> None:
    """Print tables of the report; as JSON a list of them, as CSV one after the other with an empty line between."""
    if format_ is None:
        for each in shown:
            print_shown(each)
        return
    rows = [[{**row.values, "warnings": "; ".join(map(str, row.warnings))} for row in each.rows] for each in shown]
    if format_ == "json":
        found = [
            {"title": each.title, "caption": each.caption, "rows": its} for each, its in zip(shown, rows, strict=True)
        ]
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for number, its in enumerate(rows):
        if number:
            print()
        print_rows(its, format_)


def print_shown(shown: Shown) -> None:
    """Print a table of the report; one with a single row has a line for each of its columns."""
    from stepbench.reporting import markup, tables  # 0.1 s

    names = [f"{each['heading']} ({each['unit']})" if each["unit"] else each["heading"] for each in shown.columns]
    texts = [[markup.unescape(text) for text in row.texts] for row in shown.rows]
    console.print(f"\n{shown.title}", markup=False, style="bold")
    table = Table()
    if len(texts) == 1 and len(names) > 7:
        table.show_header = False
        for name, text in zip(names, texts[0], strict=True):
            table.add_row(Text(markup.unescape(name)), Text(text))
    else:
        for name, column in zip(names, shown.columns, strict=True):
            table.add_column(Text(markup.unescape(name)), justify="right" if column["kind"] == "number" else "left")
        for row in texts:
            table.add_row(*map(Text, row))
    print_wide(table)
    for line in filter(None, (tables.introduction(shown), markup.escape(shown.legend))):
        console.print(markup.unescape(line), markup=False, style="dim")


def print_wide(table: Table) -> None:
    """Print a table to a terminal as it fits, and to a file or a pipe as wide as it is."""
    to = console if console.is_terminal else Console(highlight=False, width=1000)
    to.print(table)
