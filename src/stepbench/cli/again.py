"""`stepbench again`: measure again what has a record whose numbers are not good enough."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any

from stepbench import terminal
from stepbench.cli import selection
from stepbench.cli.output import FAILED_EXIT_CODE, add_configuration, open_bench
from stepbench.pipeline import history, inputs
from stepbench.pipeline.bench import RUN_LOCK
from stepbench.pipeline.progress import Progress
from stepbench.pipeline.state import States
from stepbench.process import interruption, lock, run, storage


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("again", help="measure configured cells again whose numbers have a poor quality")
    parser.add_argument(
        "--quality",
        choices=selection.QUALITIES,
        default="C",
        help="this quality or a worse one (default: C, as `cells --quality C` lists them)",
    )
    selection.add_arguments(parser)
    add_configuration(parser)
    parser.set_defaults(run=again)


def again(options: argparse.Namespace) -> int:
    """Measure the cells one after the other; of each the better record stays."""
    bench = open_bench(options)
    states = States(bench)
    found = list(selection.select(states, options))
    if not found:
        terminal.say(f"no record has quality {options.quality} or a worse one", sign="")
        return 0
    storage.check_writable(bench.root / path for path in (RUN_LOCK, *(Path(each.path) for each in found)))
    lock.hold(bench.root / RUN_LOCK, "this folder")
    interruption.end_run_on_signals()
    inputs.check(bench)
    name = f"again {datetime.datetime.now(datetime.UTC).isoformat()}"
    failed = 0
    for each in found:
        progress = Progress(states, each.cell, name, [other.path for other in found])
        progress.begin()
        inputs.make(bench, each.cell)
        before = states.of(each.cell).record
        record = run.measure_cell(states, each.cell)
        progress.end(record, history.choose(states, each.cell, before, record))
        failed += not record.ok
    left = sum((selection.of(states, each.cell).quality or "D") >= options.quality for each in found)
    terminal.say(f"measured again: {len(found)}; still of quality {options.quality} or a worse one: {left}", sign="")
    return FAILED_EXIT_CODE if failed else 0
