"""The second door: measure and look at cells without Snakemake.

python -m stepbench measure end_to_end size~micro,context~64
python -m stepbench cells --where size=micro
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stepbench import cells, run
from stepbench.bench import Bench
from stepbench.config import ConfigError
from stepbench.experiments import experiment as experiments
from stepbench.lock import BusyError
from stepbench.records import Record

FAILED_EXIT_CODE = 1
USAGE_EXIT_CODE = 2

_console = Console(highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 if something failed, 2 if the command cannot be understood."""
    parser = argparse.ArgumentParser(prog="python -m stepbench", description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--root", type=Path, default=Path(), help="the folder that holds config.yaml (default: here)")
    commands = parser.add_subparsers(dest="command", required=True)

    measure = commands.add_parser("measure", help="measure one cell and print what came out")
    measure.add_argument("experiment", help=f"one of {', '.join(experiments.names())}")
    measure.add_argument("cell", help="axis~value,axis~value,…; axes that have a default may be left out")
    measure.set_defaults(run=_measure)

    listing = commands.add_parser("cells", help="list the configured cells and what their files are worth today")
    listing.add_argument(
        "--where", action="append", default=[], metavar="AXIS=VALUE", help="only such cells; repeatable"
    )
    listing.add_argument("--state", choices=["fresh", "stale", "missing", "failed"], help="only cells in this state")
    listing.add_argument("experiments", nargs="*", help="only these experiments")
    listing.set_defaults(run=_cells)

    options = parser.parse_args(arguments)
    try:
        return options.run(Bench.open(options.root), options)
    except (ConfigError, BusyError, ValueError) as error:
        for line in str(error).splitlines():
            print(f"stepbench: {line}", file=sys.stderr)
        return FAILED_EXIT_CODE if isinstance(error, BusyError) else USAGE_EXIT_CODE


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples of the module's docstring as they stand."""


def _measure(bench: Bench, options: argparse.Namespace) -> int:
    experiment = experiments.load(options.experiment)
    cell = complete(experiment.cell, options.cell)
    bench.check_cell(cell)
    bench.hold()
    bench.check_data()
    if bench.reads_tokens(experiment.name) and not (bench.root / bench.token_path).exists():
        bench.prepare_tokens()
    record = run.measure_cell(bench, experiment.name, cell)
    _console.print(str(bench.path(experiment.name, cell)), style="dim")
    if not record.ok:
        _console.print(f"{record.status}: {record.reason}", style="bold red", markup=False)
        return FAILED_EXIT_CODE
    _console.print(_table_of(record))
    return 0


def complete(cell_type: type, text: str) -> Any:
    """Return the cell that `text` names; unlike in a path, axes may be in any order, and those with a default left out.

    Raises:
        ValueError: an axis is unknown, repeated, without value and default, or its value is not valid.
    """
    axes = {axis.name: axis for axis in cells.axes(cell_type)}
    values: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = part.partition("~")
        if key not in axes or key in values:
            wrong = "twice" if key in values else "unknown"
            raise ValueError(f"a cell must name the axes {', '.join(axes)}, each once, got {key!r}, which is {wrong}")
        values[key] = axes[key].parse(value)
    for field in dataclasses.fields(cell_type):
        if field.name not in values and field.default is dataclasses.MISSING:
            raise ValueError(f"`{field.name}` must be given, {axes[field.name].valid}, got {text!r}")
    return cell_type(**values)


def _table_of(record: Record) -> Table:
    from stepbench.reporting import statistics, units

    table = Table(title=f"{record.experiment} in {record.duration_s:.1f} s")
    for heading in ("samples", "n", "median", "mean", "std", "95 % interval of the median"):
        table.add_column(heading, justify="left" if heading == "samples" else "right")
    for name, samples in record.samples.items():
        if not name.endswith("_s") or not samples or isinstance(samples[0], list):
            continue
        summary = statistics.summarize([samples])
        low, high = (units.seconds(bound) for bound in (summary.low, summary.high))
        cells_ = [units.seconds(value) for value in (summary.median, summary.mean, summary.std)]
        table.add_row(name, str(summary.samples), *cells_, f"{low} … {high}")
    for name, value in record.scalars.items():
        table.add_row(name, "", str(value), "", "", "", style="dim")
    return table


def _cells(bench: Bench, options: argparse.Namespace) -> int:
    wanted = dict(_condition(text) for text in options.where)
    names = [experiments.load(name).name for name in options.experiments] or bench.names
    known = {axis.name for name in names for axis in cells.axes(experiments.load(name).cell)}
    if unknown := sorted(wanted.keys() - known):
        raise ValueError(f"`--where` must name an axis ({', '.join(sorted(known))}), got {unknown[0]!r}")
    counts: dict[str, int] = {}
    for name in names:
        axes = {axis.name: axis for axis in cells.axes(experiments.load(name).cell)}
        for cell in bench.grid(name):
            if any(key not in axes or getattr(cell, key) != axes[key].parse(text) for key, text in wanted.items()):
                continue
            state = bench.state(name, cell)
            if options.state in (None, state.kind):
                counts[state.kind] = counts.get(state.kind, 0) + 1
                _print_cell(str(bench.path(name, cell)), state.kind, state.reasons)
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "no such cell", file=sys.stderr)
    return 0


def _print_cell(path: str, kind: str, reasons: Sequence[str]) -> None:
    style = {"fresh": "green", "stale": "yellow", "missing": "dim", "failed": "red"}[kind]
    _console.print(path, end="  ", markup=False)
    _console.print(kind, style=style, end="")
    _console.print(f"  {'; '.join(reasons)}" if reasons else "", markup=False)


def _condition(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise ValueError(f"`--where` must be AXIS=VALUE, got {text!r}")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
