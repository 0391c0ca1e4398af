"""`stepbench why`: the state of one cell's record, and the reason."""

from __future__ import annotations

import argparse
from typing import Any

from stepbench.cli.output import add_configuration, console, open_bench, print_cell
from stepbench.pipeline.state import States


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("why", help="explain the state of one cell's record")
    parser.add_argument("path", help="the record, such as results/MACHINE/EXPERIMENT/CELL.json")
    add_configuration(parser)
    parser.set_defaults(run=why)


def why(options: argparse.Namespace) -> int:
    """Print the state, and a line for each reason."""
    bench = open_bench(options)
    cell = bench.locate(options.path)
    state = States(bench).of(cell)
    print_cell(str(bench.path(cell)), state.kind, ())
    for reason in state.reasons:
        console.print(f"  {reason}", markup=False)
    if cell not in bench.grid(cell.experiment):
        console.print("  not in the configured grid, so no table shows it", style="dim")
    return 0
