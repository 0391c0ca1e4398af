"""`stepbench cells`: the configured cells and the state of their records."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from stepbench.cli.output import add_configuration, open_bench, print_cell
from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells as axes_of
from stepbench.pipeline.state import States


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("cells", help="list the configured cells and the state of their records")
    parser.add_argument(
        "--where", action="append", default=[], metavar="AXIS=VALUE", help="only cells with this value; repeatable"
    )
    parser.add_argument("--state", choices=["fresh", "stale", "missing", "failed"], help="only cells in this state")
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="only these experiments (default: all)")
    add_configuration(parser)
    parser.set_defaults(run=cells)


def cells(options: argparse.Namespace) -> int:
    """Print a line for each cell that is asked for: path, state and why; how many there are goes to standard error."""
    bench = open_bench(options)
    wanted = dict(_condition(text) for text in options.where)
    names = [experiments.load(name).name for name in options.experiments] or bench.names
    known = {axis.name for name in names for axis in axes_of.axes(experiments.load(name).cell)}
    if unknown := sorted(wanted.keys() - known):
        raise ValueError(f"`--where` must name an axis, got {unknown[0]!r}; valid are {', '.join(sorted(known))}")
    counts: dict[str, int] = {}
    states = States(bench)
    for name in names:
        axes = {axis.name: axis for axis in axes_of.axes(experiments.load(name).cell)}
        for cell in bench.grid(name):
            if any(key not in axes or getattr(cell, key) != axes[key].parse(text) for key, text in wanted.items()):
                continue
            state = states.of(cell)
            if options.state in (None, state.kind):
                counts[state.kind] = counts.get(state.kind, 0) + 1
                print_cell(str(bench.path(cell)), state.kind, state.reasons)
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "no cell matches", file=sys.stderr)
    return 0


def _condition(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise ValueError(f"`--where` must be AXIS=VALUE, got {text!r}")
    return key, value
