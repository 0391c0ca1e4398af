"""What commands print, and their exit status."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

FAILED_EXIT_CODE = 1
USAGE_EXIT_CODE = 2

console = Console(highlight=False, soft_wrap=True)

_STYLES = {"fresh": "green", "stale": "yellow", "missing": "dim", "failed": "red"}


def print_cell(path: str, state: str, reasons: Sequence[str]) -> None:
    """Print a cell's path, the state of its record, and why, in one line."""
    console.print(path, end="  ", markup=False)
    console.print(state, style=_STYLES[state], end="")
    console.print(f"  {'; '.join(reasons)}" if reasons else "", markup=False)


def print_wide(table: Table) -> None:
    """Print a table to a terminal as it fits, and to a file or a pipe as wide as it is."""
    to = console if console.is_terminal else Console(highlight=False, width=1000)
    to.print(table)
