"""What commands print, and their exit status."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepbench.pipeline.bench import Bench

if TYPE_CHECKING:
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
    return Bench.open(options.root, files=options.configfile, settings=dict(map(_setting, options.config)))


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        equals = ""
    if not (key and equals):
        raise ValueError(f"`--config` must be KEY=VALUE with a value in YAML, got {text!r}")
    return key, found


def print_cell(path: str, state: str, reasons: Sequence[str]) -> None:
    """Print a cell's path, the state of its record, and why, in one line."""
    console.print(path, end="  ", markup=False)
    console.print(state, style=_STYLES[state], end="")
    console.print(f"  {'; '.join(reasons)}" if reasons else "", markup=False)


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
