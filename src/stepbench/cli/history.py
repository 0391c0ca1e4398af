"""`stepbench history`: all measurements of one cell that are known, and what made each stale."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stepbench import terminal
from stepbench.cli.output import add_configuration, add_format, open_bench, print_tables
from stepbench.pipeline import history as past
from stepbench.pipeline.state import States


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("history", help="list all measurements of one cell, and what made each stale")
    parser.add_argument("path", type=Path, help="the record, such as results/MACHINE/EXPERIMENT/CELL.json")
    add_format(parser)
    add_configuration(parser)
    parser.set_defaults(run=history)


def history(options: argparse.Namespace) -> int:
    """Print a line for each measurement; files that are no records go to standard error."""
    from stepbench.comparison import known  # 0.1 s
    from stepbench.reporting import past as shown
    from stepbench.reporting import tables

    bench = open_bench(options)
    cell = bench.locate(options.path)
    states = States(bench)
    for sentence in past.read(bench.root / bench.path(cell)).refused:
        terminal.say(f"not in the list: {sentence}")
    print_tables(
        [tables.show(shown.table(bench.path(cell), known.earlier(states, cell), states.of(cell)))], options.format
    )
    return 0
