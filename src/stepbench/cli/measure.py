"""`stepbench measure`: one cell, without Snakemake."""

from __future__ import annotations

import argparse
import dataclasses
import re
from typing import Any

from stepbench.cli.output import FAILED_EXIT_CODE, add_configuration, console, open_bench, print_shown
from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells, history, inputs
from stepbench.pipeline.bench import RUN_LOCK
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.mistakes import hint
from stepbench.pipeline.records import Record
from stepbench.pipeline.state import States
from stepbench.process import interruption, lock, run, storage


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("measure", help="measure one cell and print the result")
    parser.add_argument("experiment", help=f"one of {', '.join(experiments.names())}")
    parser.add_argument("cell", help="axis=value,axis=value,… in any order; axes with a default may be left out")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--keep-best",
        dest="replace",
        action="store_false",
        help="keep a fresh record that is better than this measurement, which then goes to the history (default)",
    )
    kept.add_argument("--replace", action="store_true", help="replace it; the old record then goes to the history")
    add_configuration(parser)
    parser.set_defaults(run=measure, replace=False)


def measure(options: argparse.Namespace) -> int:
    """Measure one cell, in the configured grid or not."""
    bench = open_bench(options)
    experiment = experiments.load(options.experiment)
    cell = complete(experiment.cell, options.cell)
    bench.check_cell(cell)
    storage.check_writable(bench.root / path for path in (RUN_LOCK, bench.path(cell)))
    lock.hold(bench.root / RUN_LOCK, "this folder")
    interruption.end_run_on_signals()
    inputs.check(bench)
    inputs.make(bench, cell)
    states = States(bench)
    before = states.of(cell).record
    record = run.measure_cell(states, cell, replace=options.replace)
    console.print(str(bench.path(cell)), style="dim")
    choice = history.choose(states, cell, before, record, take=options.replace)
    if choice is not None:
        console.print(str(choice), markup=False)
    if not record.ok:
        console.print(f"{record.status}: {record.reason}", style="bold red", markup=False)
        return FAILED_EXIT_CODE
    show(states, cell, before, record)
    return 0


def show(states: States, cell: Cell, before: Record | None, record: Record | None = None) -> None:
    """Print a fresh cell: its samples beside those of the record before, and its experiment's own table.

    Args:
        states: those of the configuration.
        cell: the cell.
        before: the record that stood in its file.
        record: what was measured; None for what stands in the file now.
    """
    from stepbench.reporting import frames, one_cell, tables  # 0.1 s

    experiment = experiments.load(cell.experiment)
    results = frames.load(states, experiment, [cell])
    if record is not None:
        results = frames.with_record(results, record)
    (group,) = results.groups()
    print_shown(tables.show(one_cell.samples(group, before), whole=True))
    if (own := one_cell.own(experiment, results)) is not None:
        print_shown(own)


def complete(cell_type: type, text: str) -> Any:
    """Return the cell that `text` names; unlike in a path, axes may be in any order, and those with a default left out.

    Raises:
        ValueError: an axis is unknown, repeated, without value and default, or its value is not valid.
    """
    axes = {axis.name: axis for axis in cells.axes(cell_type)}
    values: dict[str, Any] = {}
    for part in text.split(","):
        # On a command line people write "=", as `--where` does; names of records keep "~" (see `pipeline.cells`).
        key, value, *_ = (*re.split("[~=]", part, maxsplit=1), "")
        if key not in axes:
            raise ValueError(f"`{key}` is not an axis of this experiment{hint(key, axes)}")
        if key in values:
            raise ValueError(f"`{key}` must be given once, got it twice in {text!r}")
        values[key] = axes[key].parse(value)
    for field in dataclasses.fields(cell_type):
        if field.name not in values and field.default is dataclasses.MISSING:
            raise ValueError(f"`{field.name}` must be given ({axes[field.name].valid}), got {text!r}")
    return cell_type(**values)
