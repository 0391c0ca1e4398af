"""`stepbench cells`: the configured cells, the state of their records and the quality of their numbers."""

from __future__ import annotations

import argparse
from typing import Any

from stepbench import terminal
from stepbench.cli import selection
from stepbench.cli.output import add_configuration, add_format, open_bench, print_cell, print_rows, row_of
from stepbench.pipeline.state import States


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "cells", help="list the configured cells, the state of their records and their quality"
    )
    parser.add_argument("--state", choices=["fresh", "stale", "missing", "failed"], help="only cells in this state")
    parser.add_argument(
        "--quality", choices=selection.QUALITIES, help="only cells whose numbers have this quality or a worse one"
    )
    selection.add_arguments(parser)
    add_format(parser)
    add_configuration(parser)
    parser.set_defaults(run=cells)


def cells(options: argparse.Namespace) -> int:
    """Print a line for each cell that is asked for: path, state, quality and why; the counts go to standard error."""
    counts: dict[str, int] = {}
    rows = []
    for each in selection.select(States(open_bench(options)), options):
        if options.state not in (None, each.state.kind):
            continue
        counts[each.state.kind] = counts.get(each.state.kind, 0) + 1
        rows.append(row_of(each.path, each.state.kind, each.state.reasons, each.quality, each.warnings))
        if options.format is None:
            print_cell(**rows[-1])
    if options.format is not None:
        print_rows(rows, options.format)
    terminal.say(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "no cell matches", sign="")
    return 0
