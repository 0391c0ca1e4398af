"""`stepbench why`: the state of one cell's record, the quality of its numbers, and the reasons."""

from __future__ import annotations

import argparse
from typing import Any

from stepbench.cli import selection
from stepbench.cli.output import add_configuration, add_format, console, open_bench, print_cell, print_rows, row_of
from stepbench.pipeline.state import States


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("why", help="explain the state of one cell's record and the quality of its numbers")
    parser.add_argument("path", help="the record, such as results/MACHINE/EXPERIMENT/CELL.json")
    add_format(parser)
    add_configuration(parser)
    parser.set_defaults(run=why)


def why(options: argparse.Namespace) -> int:
    """Print the state and the quality, and a line for each reason."""
    bench = open_bench(options)
    cell = bench.locate(options.path)
    found = selection.of(States(bench), cell)
    is_configured = cell in bench.grid(cell.experiment)
    row = row_of(found.path, found.state.kind, found.state.reasons, found.quality, found.warnings)
    if options.format is not None:
        print_rows([row | {"in_grid": is_configured}], options.format)
        return 0
    print_cell(found.path, found.state.kind)
    for reason in found.state.reasons:
        console.print(f"  {reason}", markup=False)
    if found.quality is not None:
        console.print(" ".join(["  quality", found.quality, row["warnings"]]), markup=False)
    if not is_configured:
        console.print("  not in the configured grid, so no table shows it", style="dim")
    return 0
