"""`stepbench measure`: one cell, or two in turn, without Snakemake."""

from __future__ import annotations

import argparse
import dataclasses
import re
from typing import Any

from rich.console import Console

from stepbench.cli.output import FAILED_EXIT_CODE, add_configuration, add_format, console, open_bench, print_tables
from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells, history, inputs
from stepbench.pipeline.bench import RUN_LOCK
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.mistakes import hint
from stepbench.pipeline.records import Record
from stepbench.pipeline.state import States
from stepbench.process import interruption, lock, run, storage
from stepbench.workloads import follow

REPLICATE = "replicate"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "measure", help="measure one cell and print the result, or two in turn and compare them"
    )
    parser.add_argument("experiment", help=f"one of {', '.join(experiments.names())}")
    parser.add_argument(
        "cells",
        nargs="+",
        metavar="CELL",
        help="axis=value,axis=value,… in any order; axes with a default may be left out; a second one is compared with "
        "the first",
    )
    parser.add_argument(
        "--replicates", type=int, default=1, metavar="N", help="processes of each of two cells; a verdict needs 5"
    )
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--keep-best",
        dest="replace",
        action="store_false",
        help="keep a fresh record that is better than this measurement, which then goes to the history (default)",
    )
    kept.add_argument("--replace", action="store_true", help="replace it; the old record then goes to the history")
    parser.add_argument(
        "--rendezvous",
        metavar="HOST:PORT",
        help="of the first node, for a cell on several without Slurm; give the same command on each of them",
    )
    parser.add_argument("--node-rank", type=int, default=0, metavar="N", help="which of them this is (default: 0)")
    add_format(parser)
    add_configuration(parser)
    parser.set_defaults(run=measure, replace=False)


def measure(options: argparse.Namespace) -> int:
    """Measure one cell, or two in turn, in the configured grid or not."""
    bench = open_bench(options)
    sides = _sides(options)
    measured = [cell for side in sides for cell in side]
    for cell in measured:
        bench.check_cell(cell)
    if options.rendezvous is not None or options.node_rank:
        host, port, nodes = _rendezvous(options, measured)
        token = f"{measured[0].experiment}/{measured[0].name}"
        if options.node_rank:
            return follow.follow([host], port, device=bench.device, rank=options.node_rank, count=nodes, token=token)
        follow.lead(port, token)
    storage.check_writable(bench.root / path for path in (RUN_LOCK, *map(bench.path, measured)))
    lock.hold(bench.root / RUN_LOCK, "this folder")
    interruption.end_run_on_signals()
    inputs.check(bench, [cell])
    for cell in measured:
        inputs.make(bench, cell)
    states = States(bench)
    if len(sides) == 2:
        return _compare(states, sides, options)
    (cell,) = measured
    before = states.of(cell).record
    record = _measure(states, cell, options)
    if not record.ok:
        return FAILED_EXIT_CODE
    show(states, cell, before, record, format_=options.format)
    return 0


def _sides(options: argparse.Namespace) -> list[list[Cell]]:
    """Return the cells of each side, one for each process."""
    if len(options.cells) > 2:
        raise ValueError(f"`measure` takes one cell, or two to compare, got {len(options.cells)}")
    if options.replicates < 1:
        raise ValueError(f"`--replicates` must be 1 or more, got {options.replicates}")
    cell_type = experiments.load(options.experiment).cell
    firsts = [complete(cell_type, text) for text in options.cells]
    if len(firsts) == 1:
        if options.replicates > 1:
            raise ValueError("`--replicates` is for two cells, which are measured in turn, got one cell")
        return [firsts]
    if not hasattr(firsts[0], REPLICATE):
        raise ValueError(f"two cells of {options.experiment} cannot be compared: it has no replicates")
    sides = [[dataclasses.replace(first, replicate=number) for number in range(options.replicates)] for first in firsts]
    if sides[0] == sides[1]:
        raise ValueError("the two cells must differ in an axis other than `replicate`")
    return sides


def _rendezvous(options: argparse.Namespace, measured: list[Cell]) -> tuple[str, int, int]:
    """Return host and port of the first node, and how many nodes there are."""
    host, _, port = (options.rendezvous or "").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"`--rendezvous` must be HOST:PORT of the first node, got {options.rendezvous!r}")
    nodes = {getattr(cell, "nodes", 1) for cell in measured}
    if len(measured) > 1 or nodes == {1}:
        raise ValueError("`--rendezvous` is for one cell on several nodes, such as nodes=2")
    (count,) = nodes
    if not 0 <= options.node_rank < count:
        raise ValueError(f"`--node-rank` must be from 0 to {count - 1}, got {options.node_rank}")
    return host, int(port), count


def _measure(states: States, cell: Cell, options: argparse.Namespace) -> Record:
    """Measure a cell and print its path, whether the record before was kept, and a failure."""
    to = console if options.format is None else Console(stderr=True, highlight=False, soft_wrap=True)
    before = states.of(cell).record
    record = run.measure_cell(states, cell, replace=options.replace)
    to.print(str(states.bench.path(cell)), style="dim", markup=False)
    choice = history.choose(states, cell, before, record, take=options.replace)
    if choice is not None:
        to.print(str(choice), markup=False)
    if not record.ok:
        to.print(f"{record.status}: {record.reason}", style="bold red", markup=False)
    return record


def _compare(states: States, sides: list[list[Cell]], options: argparse.Namespace) -> int:
    from stepbench.comparison import in_turn  # 0.1 s, of numpy
    from stepbench.reporting import frames, one_cell, tables, two_cells

    found: dict[Cell, Record] = {}
    for round_ in range(options.replicates):
        for side in in_turn.order(sides, round_):
            found[side[round_]] = _measure(states, side[round_], options)
    cells_ = [cell for side in sides for cell in side]
    experiment = experiments.load(options.experiment)
    # What was measured now, also where a better record stays in the cell's file: only that was measured in turn.
    results = frames.with_record(frames.load(states, experiment, cells_), *(found[cell] for cell in cells_))
    first, second = results.groups()
    own = one_cell.own(experiment, results)
    print_tables([tables.show(two_cells.table(first, second), whole=True), *([own] if own else [])], options.format)
    return 0 if all(record.ok for record in found.values()) else FAILED_EXIT_CODE


def show(
    states: States, cell: Cell, before: Record | None, record: Record | None = None, *, format_: str | None = None
) -> None:
    """Print a fresh cell: its samples beside those of the record before, and its experiment's own table.

    Args:
        states: those of the configuration.
        cell: the cell.
        before: the record that stood in its file.
        record: what was measured; None for what stands in the file now.
        format_: `json` or `csv`; None for people.
    """
    from stepbench.reporting import frames, one_cell, tables  # 0.1 s

    experiment = experiments.load(cell.experiment)
    results = frames.load(states, experiment, [cell])
    if record is not None:
        results = frames.with_record(results, record)
    (group,) = results.groups()
    own = one_cell.own(experiment, results)
    print_tables([tables.show(one_cell.samples(group, before), whole=True), *([own] if own else [])], format_)


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
