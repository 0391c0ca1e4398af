"""`stepbench plan`: what a run would measure, and about how long it would take."""

from __future__ import annotations

import argparse
from typing import Any

from stepbench import terminal
from stepbench.cli.output import add_configuration, add_format, open_bench, print_cell, print_rows
from stepbench.experiments import experiment as experiments
from stepbench.pipeline import durations, inputs, planning
from stepbench.pipeline.bench import Bench
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
        terminal.say(reason)
    inputs.tell_unasked(bench)
    terminal.say("; ".join(_told(bench, found, options.price_per_hour)), sign="")
    if bench.scale == "gpu_quick" and not options.experiments:
        whole = planning.by_formula(bench, "gpu")
        line = f"the whole grid, `scale: gpu`, has {whole.by_formula} cells and takes roughly"
        costs = _cost(bench, whole, options.price_per_hour)
        told = [planning.duration(whole.seconds), *([] if costs is None else [costs])]
        terminal.say(f"{line} {'; '.join(told)}", sign="")
    for section, names in planning.unused(bench).items():
        line = f"no grid uses {', '.join(names)} of `{section}`: add it to a grid of `experiments`"
        terminal.say(line, sign="")
    return 0


def _told(bench: Bench, found: planning.Plan, price_per_hour: float | None) -> list[str]:
    """Return how many cells there are to measure, about how long that takes and what it costs, and by what."""
    estimate = planning.estimate(found.waiting, found.durations_s)
    told = [f"{len(found.waiting)} of {found.total} cells to measure"]
    known = len(found.waiting) - estimate.unknown
    if known:
        source = "from earlier cells"
        if estimate.by_formula:
            many = "" if estimate.by_formula == known else f"{estimate.by_formula} of them "
            peaks = durations.of_peaks(bench)
            source = f"{many}roughly, as no similar cell has been measured: predicted FLOPs and bytes over {peaks}"
        told.append(f"about {planning.duration(estimate.seconds)} of measurement, estimated {source}")
    if estimate.unknown:
        told.append(f"no estimate for {estimate.unknown}, as no similar cell has been measured")
    if known and (cost := _cost(bench, estimate, price_per_hour)) is not None:
        told.append(cost)
    return told


def _cost(bench: Bench, estimate: planning.Estimate, price_per_hour: float | None) -> str | None:
    """Return what the machine costs meanwhile, or that config.yaml does not say so of one that others lend."""
    # Late: no command that does without may import what reports are made with.
    from stepbench.reporting.prices import Price

    hours = estimate.held_s / 3600
    if price_per_hour is not None:
        return f"estimated cost {hours * price_per_hour:.2f}: {hours:.1f} h at {price_per_hour:.2f} an hour"
    prices, names = bench.settings.get("prices", {}), (bench.machine, bench.host.name)
    if (section := next((prices[name] for name in names if name in prices), None)) is None:
        known = not bench.host.described
        return None if known else f"no cost, as config.yaml has no price of {bench.host.name} under `prices`"
    price, count = Price.of(section), len(bench.host.device_names)
    each = f"{price.per_device_hour:.2f} {price.currency}"
    return (
        f"estimated cost {hours * count * price.per_device_hour:.2f} {price.currency} ({hours:.1f} h of "
        f"{count} device{'s' if count > 1 else ''} at {each} per device-hour; {price.origin})"
    )
