"""`stepbench plan`: what a run would measure, and about how long it would take."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from stepbench.cli.output import add_configuration, add_format, open_bench, print_cell, print_rows
from stepbench.experiments import experiment as experiments
from stepbench.pipeline import inputs, planning
from stepbench.pipeline.state import States


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("plan", help="list the cells that a run would measure, why, and the estimated time")
    parser.add_argument("--price-per-hour", type=float, metavar="AMOUNT", help="of this machine, in any currency")
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="only these experiments (default: all)")
    add_format(parser)
    add_configuration(parser)
    parser.set_defaults(run=plan)


def plan(options: argparse.Namespace) -> int:
    """Print a line for each cell to measure; the estimate goes to standard error."""
    states = States(bench := open_bench(options))
    found = planning.plan(states, [experiments.load(name).name for name in options.experiments])
    if options.format is None:
        for each in found.waiting:
            print_cell(each.path, each.state, each.reasons)
    else:
        keys = ("path", "state", "reasons")
        print_rows([{key: getattr(each, key) for key in keys} for each in found.waiting], options.format)
    if (reason := inputs.lacks_compiler(bench, bench.cells)) is not None:
        print(f"stepbench: {reason}", file=sys.stderr)
    estimate = planning.estimate(found.waiting, found.durations_s)
    told = [f"{len(found.waiting)} of {found.total} cells to measure"]
    if estimate.unknown < len(found.waiting):
        source = "from earlier cells" if estimate.by_formula == 0 else "roughly, from FLOPs and the device's peaks"
        if 0 < estimate.by_formula < len(found.waiting) - estimate.unknown:
            source = f"{estimate.by_formula} of them roughly, from FLOPs and the device's peaks"
        told.append(f"about {planning.duration(estimate.seconds)} of measurement, estimated {source}")
    if estimate.unknown:
        told.append(f"no estimate for {estimate.unknown}, as no similar cell has been measured")
    if options.price_per_hour is not None and estimate.unknown < len(found.waiting):
        price = options.price_per_hour
        told.append(f"estimated cost {estimate.seconds / 3600 * price:.2f} at {price:.2f} an hour")
    print("; ".join(told), file=sys.stderr)
    if bench.scale == "gpu_quick" and not options.experiments:
        cells, seconds = planning.by_formula(bench, "gpu")
        line = f"the whole grid, `scale: gpu`, has {cells} cells and takes roughly {planning.duration(seconds)}"
        print(line, file=sys.stderr)
    for section, names in planning.unused(bench).items():
        line = f"no grid uses {', '.join(names)} of `{section}`: add it to a grid of `experiments`"
        print(line, file=sys.stderr)
    return 0
