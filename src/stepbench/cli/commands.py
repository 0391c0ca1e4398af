"""The second door: measure and look at cells without Snakemake, look at the Triton kernels and tune them.

python -m stepbench measure end_to_end size~micro,context~64
python -m stepbench cells --where size=micro
python -m stepbench plan --price-per-hour 2.50
python -m stepbench why 'results/…/size~micro,….json'
python -m stepbench prune --dry-run
python -m stepbench compare nvidia-h200-1x nvidia-geforce-rtx-5090-2x --price nvidia-h200-1x=3.50
python -m stepbench kernels --architecture sm_90 --head-dim 64 128
python -m stepbench tune --head-dim 64 --dtype bfloat16
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import bundle, cells, inputs, planning
from stepbench.pipeline.bench import RUN_LOCK, Bench
from stepbench.pipeline.config import ConfigError
from stepbench.pipeline.records import Record
from stepbench.pipeline.state import States
from stepbench.process import interruption, lock, run, storage
from stepbench.process.lock import BusyError

FAILED_EXIT_CODE = 1
USAGE_EXIT_CODE = 2

_console = Console(highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0, 1 if something failed, 2 if the command cannot be understood, 130 after Ctrl-C and 143 after SIGTERM.
    """
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

    plan = commands.add_parser("plan", help="list what a run would measure, why, and about how long it would take")
    plan.add_argument("--price-per-hour", type=float, help="what an hour of this machine costs, in any currency")
    plan.add_argument("experiments", nargs="*", help="only these experiments")
    plan.set_defaults(run=_plan)

    why = commands.add_parser("why", help="explain what one cell's file is worth today")
    why.add_argument("path", help="a target path")
    why.set_defaults(run=_why)

    prune = commands.add_parser("prune", help="remove this machine's records that no configured grid asks for")
    prune.add_argument("--dry-run", action="store_true", help="only list them")
    prune.set_defaults(run=_prune)

    pack = commands.add_parser("pack", help="write all records of this machine into one file")
    pack.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="where to; here, if not given")
    pack.set_defaults(run=_pack)

    merge = commands.add_parser("merge", help="bring the records of other machines' bundles into results/")
    merge.add_argument("files", nargs="+", type=Path, metavar="FILE", help="written by `pack`")
    merge.add_argument("--replace", action="store_true", help="write over records that say something else")
    merge.set_defaults(run=_merge)

    compare = commands.add_parser("compare", help="hold machines against each other, with prices")
    compare.add_argument("machines", nargs="+", metavar="MACHINE", help="the first against each of the others")
    compare.add_argument(
        "--price", action="append", default=[], metavar="MACHINE=AMOUNT", help="of one device for an hour; repeatable"
    )
    compare.set_defaults(run=_compare)

    kernels = commands.add_parser("kernels", help="print what every shipped Triton kernel costs; needs no GPU")
    kernels.add_argument(
        "--compile", action="store_true", help="compile them now, and unless filtered keep the figures in figures.json"
    )
    kernels.add_argument("--architecture", nargs="+", default=[], metavar="NAME", help="only these, such as sm_90")
    kernels.add_argument("--head-dim", nargs="+", type=int, default=[], metavar="D", help="only these head dims")
    kernels.add_argument("--dtype", nargs="+", default=[], metavar="NAME", help="only these, such as bfloat16")
    kernels.set_defaults(run=_kernels)

    tune = commands.add_parser("tune", help="search the fastest tile shapes on this GPU and rewrite tiles.json")
    tune.add_argument("--head-dim", nargs="+", type=int, default=[64, 128], metavar="D", help="default: 64 128")
    tune.add_argument("--dtype", nargs="+", default=["bfloat16"], metavar="NAME", help="default: bfloat16")
    tune.set_defaults(run=_tune)

    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (ConfigError, BusyError, ValueError, storage.StorageError) as error:
        for line in str(error).splitlines():
            print(f"stepbench: {line}", file=sys.stderr)
        return FAILED_EXIT_CODE if isinstance(error, BusyError | storage.StorageError) else USAGE_EXIT_CODE
    except OSError as error:
        if (sentence := storage.told(error)) is None:
            raise
        print(f"stepbench: {sentence}", file=sys.stderr)
        return FAILED_EXIT_CODE


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples of the module's docstring as they stand."""


def _measure(options: argparse.Namespace) -> int:
    bench = Bench.open(options.root)
    experiment = experiments.load(options.experiment)
    cell = complete(experiment.cell, options.cell)
    bench.check_cell(cell)
    storage.check_writable(bench.root / path for path in (RUN_LOCK, bench.path(cell)))
    _hold(bench)
    interruption.end_run_on_signals()
    inputs.check(bench)
    if bench.reads_tokens(experiment.name) and not (bench.root / bench.token_path).exists():
        inputs.prepare_tokens(bench)
    data = bench.shards(cell)
    if data is not None and any(not (bench.root / path).exists() for path in inputs.of(bench, cell)):
        inputs.prepare_shards(bench, data.name)
    record = run.measure_cell(States(bench), cell)
    _console.print(str(bench.path(cell)), style="dim")
    if not record.ok:
        _console.print(f"{record.status}: {record.reason}", style="bold red", markup=False)
        return FAILED_EXIT_CODE
    _console.print(_table_of(record))
    return 0


def _hold(bench: Bench) -> None:
    """Hold the folder until this process ends."""
    lock.hold(bench.root / RUN_LOCK, "this folder")


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


def _cells(options: argparse.Namespace) -> int:
    bench = Bench.open(options.root)
    wanted = dict(_condition(text) for text in options.where)
    names = [experiments.load(name).name for name in options.experiments] or bench.names
    known = {axis.name for name in names for axis in cells.axes(experiments.load(name).cell)}
    if unknown := sorted(wanted.keys() - known):
        raise ValueError(f"`--where` must name an axis ({', '.join(sorted(known))}), got {unknown[0]!r}")
    counts: dict[str, int] = {}
    states = States(bench)
    for name in names:
        axes = {axis.name: axis for axis in cells.axes(experiments.load(name).cell)}
        for cell in bench.grid(name):
            if any(key not in axes or getattr(cell, key) != axes[key].parse(text) for key, text in wanted.items()):
                continue
            state = states.of(cell)
            if options.state in (None, state.kind):
                counts[state.kind] = counts.get(state.kind, 0) + 1
                _print_cell(str(bench.path(cell)), state.kind, state.reasons)
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "no such cell", file=sys.stderr)
    return 0


def _plan(options: argparse.Namespace) -> int:
    bench = Bench.open(options.root)
    found = planning.plan(States(bench), [experiments.load(name).name for name in options.experiments])
    for each in found.waiting:
        _print_cell(each.path, each.state, each.reasons)
    seconds, unlike = planning.estimate([each.kind for each in found.waiting], found.durations_s)
    told = [f"{len(found.waiting)} of {found.total} cells would be measured"]
    if unlike < len(found.waiting):
        told.append(f"about {planning.duration(seconds)} inside measurements, going by earlier cells")
    if unlike:
        told.append(f"{unlike} unlike any before, of which nothing is known")
    if options.price_per_hour is not None and unlike < len(found.waiting):
        told.append(f"which costs {seconds / 3600 * options.price_per_hour:.2f} at {options.price_per_hour:g} an hour")
    print("; ".join(told), file=sys.stderr)
    return 0


def _why(options: argparse.Namespace) -> int:
    bench = Bench.open(options.root)
    cell = bench.locate(options.path)
    state = States(bench).of(cell)
    _print_cell(str(bench.path(cell)), state.kind, ())
    for reason in state.reasons:
        _console.print(f"  {reason}", markup=False)
    if cell not in bench.grid(cell.experiment):
        _console.print("  it is not in the configured grid, so no table shows it", style="dim")
    return 0


def _prune(options: argparse.Namespace) -> int:
    bench = Bench.open(options.root)
    if not options.dry_run:
        _hold(bench)
    found = planning.left_over(bench)
    for path in found:
        _console.print(str(path), markup=False)
        if not options.dry_run:
            (bench.root / path).unlink()
    verb = "would be removed" if options.dry_run else "removed"
    print(f"{len(found)} records that no configured grid asks for {verb}", file=sys.stderr)
    return 0


def _pack(options: argparse.Namespace) -> int:
    print(bundle.pack(Bench.open(options.root), options.out))
    return 0


def _merge(options: argparse.Namespace) -> int:
    bench = Bench.open(options.root)
    _hold(bench)
    left = 0
    for file in options.files:
        try:
            found = bundle.merge(bench, file, replace=options.replace)
        except OSError as error:
            raise ValueError(f"{file}: a bundle must be a file that can be read, got {error.strerror}") from None
        for path in found.conflicts:
            _console.print(f"{path}  {'replaced' if options.replace else 'says something else, kept'}", markup=False)
        left += 0 if options.replace else len(found.conflicts)
        told = f"{len(found.written)} records written, {len(found.same)} were there already"
        print(f"{found.machine}: {told}, {len(found.conflicts)} say something else", file=sys.stderr)
    return FAILED_EXIT_CODE if left else 0


def _compare(options: argparse.Namespace) -> int:
    from rich.markdown import Markdown

    from stepbench.comparison import document, machines

    found = machines.priced(machines.load(States(Bench.open(options.root))), options.price)
    known = {machine.name: machine for machine in found}
    if unknown := [name for name in options.machines if name not in known]:
        raise ValueError(f"a machine must be one of {', '.join(known)}, got {unknown[0]!r}")
    if len(options.machines) < 2:
        raise ValueError(f"there must be two machines or more to compare, got {options.machines[0]} alone")
    text = document.document([known[name] for name in options.machines])
    _console.print(Markdown(text) if _console.is_terminal else text, markup=False)
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


def _kernels(options: argparse.Namespace) -> int:
    _check_triton()
    from stepbench.kernels.triton import resources

    asked = {axis: values for axis in ("architecture", "head_dim", "dtype") if (values := getattr(options, axis))}
    if options.compile:
        known = [row for architecture in resources.SHARED_BYTES for row in resources.shipped_variants(architecture)]
        origin = "compiled now"
    else:
        figures = resources.read_figures()
        known = figures["rows"]
        origin = f"compiled on {figures['date']} with triton {figures['triton']}"
    for axis, values in asked.items():
        valid = sorted({row[axis] for row in known})
        if unknown := [value for value in values if value not in valid]:
            option = f"--{axis.replace('_', '-')}"
            raise ValueError(f"`{option}` must be one of {', '.join(map(str, valid))}, got {unknown[0]}")
    rows = [row for row in known if all(row[axis] in values for axis, values in asked.items())]
    if not rows:
        raise ValueError(f"the filters must leave a kernel, got none for {asked}")
    if options.compile:
        architectures = options.architecture or resources.ARCHITECTURES
        rows = resources.table(architectures, options.head_dim or None, options.dtype or None)
        if not asked:
            resources.write_figures(rows)
    _console.print(origin, style="dim")
    _print_wide(_table_of_kernels(rows))
    return 0


def _table_of_kernels(rows: Sequence[Mapping[str, Any]]) -> Table:
    from stepbench.experiments.attention import kernel_table

    table = Table()
    for column in kernel_table.COLUMNS:
        table.add_column(column.heading, justify="right" if column.numeric else "left")
    for row in rows:
        bad = row["spill_bytes"] or row["serialized"]
        table.add_row(*(column.text(row) for column in kernel_table.COLUMNS), style="red" if bad else None)
    return table


def _print_wide(table: Table) -> None:
    """Print a table to a terminal as it fits, and to a file or a pipe as wide as it is."""
    console = _console if _console.is_terminal else Console(highlight=False, width=1000)
    console.print(table)


def _tune(options: argparse.Namespace) -> int:
    _check_triton()
    import torch

    from stepbench.kernels.triton import tune

    if not torch.cuda.is_available():
        raise ValueError("tuning needs a CUDA device, got none")
    problems = list(tune.shipped_problems(options.head_dim, options.dtype))
    tune.tune(problems, report=functools.partial(_console.print, markup=False))
    print(
        "tiles.json is rewritten; now run `python -m stepbench kernels --compile`, for figures.json is of other tiles",
        file=sys.stderr,
    )
    return 0


def _check_triton() -> None:
    """Raise ValueError where there is no Triton."""
    if importlib.util.find_spec("triton") is None:
        raise ValueError("the Triton kernels need the triton package, got none")
