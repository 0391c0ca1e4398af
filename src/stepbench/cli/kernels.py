"""`stepbench kernels`: what each shipped Triton kernel costs; needs no GPU."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.table import Table

from stepbench import terminal
from stepbench.cli.output import add_format, console, print_rows, print_wide
from stepbench.measure import devices


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("kernels", help="print registers, spills and shared memory of the Triton kernels")
    parser.add_argument(
        "--compile", action="store_true", help="compile them now, and without a filter rewrite figures.json"
    )
    parser.add_argument(
        "--limits", action="store_true", help="print what limits those for 16 bits on an H100 (sm_90), predicted"
    )
    parser.add_argument(
        "--measure", type=Path, metavar="FILE", help="on a GPU: time them and what they compete with, into a new file"
    )
    parser.add_argument("--seconds", type=float, default=120.0, metavar="S", help="for --measure; default: 120")
    parser.add_argument(
        "--refit", nargs="+", type=Path, metavar="BUNDLE", help="fit the prediction to times that gpu-check measured"
    )
    parser.add_argument("--head", action="store_true", help="the kernel of head and loss instead of attention's")
    parser.add_argument("--architecture", nargs="+", default=[], metavar="NAME", help="only these, such as sm_90")
    parser.add_argument("--head-dim", nargs="+", type=int, default=[], metavar="D", help="only these head dims")
    parser.add_argument("--dtype", nargs="+", default=[], metavar="NAME", help="only these, such as bfloat16")
    add_format(parser)
    parser.set_defaults(run=kernels)


def check_triton() -> None:
    """Check that Triton is installed.

    Raises:
        ValueError: it is not.
    """
    if importlib.util.find_spec("triton") is None:
        raise ValueError("the package `triton` is not installed, and the Triton kernels need it")


def kernels(options: argparse.Namespace) -> int:
    """Print the table of the kernels that are asked for."""
    check_triton()
    if options.measure:
        return _measure(options.measure, options.seconds)
    if options.refit:
        return _refit(options.refit, options.format)
    from stepbench.kernels.triton import resources  # 1.2 s, of torch and triton

    if options.head:
        return _head(options)
    if options.limits:
        options.architecture = options.architecture or ["sm_90"]
    asked = {axis: values for axis in ("architecture", "head_dim", "dtype") if (values := getattr(options, axis))}
    if options.compile:
        known = [row for architecture in resources.SHARED_BYTES for row in resources.shipped_variants(architecture)]
        origin = "compiled now"
    else:
        figures = resources.read_figures(resources.kept_path())
        known = figures["rows"]
        origin = f"compiled on {figures['date']} with triton {figures['triton']}"
    for axis, values in asked.items():
        valid = sorted({row[axis] for row in known})
        if unknown := [value for value in values if value not in valid]:
            option = f"--{axis.replace('_', '-')}"
            raise ValueError(f"`{option}` must be one of {', '.join(map(str, valid))}, got {unknown[0]}")
    rows = [row for row in known if all(row[axis] in values for axis, values in asked.items())]
    if not rows:
        chosen = "; ".join(f"{axis} {', '.join(map(str, values))}" for axis, values in asked.items())
        raise ValueError(f"no shipped kernel matches all filters ({chosen})")
    if options.compile:
        architectures = options.architecture or resources.ARCHITECTURES
        rows = resources.table(architectures, options.head_dim or None, options.dtype or None)
        if not asked:
            resources.write_figures(rows)
    if options.format is None:
        console.print(origin, style="dim")
    from stepbench.experiments.attention import kernel_table  # 0.1 s, of numpy

    if options.limits:
        limits = kernel_table.limits_rows(rows, kernel_table.read(kernel_table.TILES), {})
        if not limits:
            raise ValueError("`--limits` knows the kernels for 16 bits on sm_90, and the filters leave none of them")
        rows, columns = limits, kernel_table.LIMITS_COLUMNS
    else:
        columns = kernel_table.COLUMNS
    if options.format is None:
        print_wide(_table_of(rows, columns))
    else:
        print_rows(rows, options.format)
    return 0


def _measure(file: Path, seconds: float) -> int:
    """Time kernels and implementations, and write and print each as soon as it is known."""
    os.environ |= devices.ENVIRONMENT  # or another GPU would be timed than cells are measured on
    import torch  # 1 s

    if not torch.cuda.is_available():
        raise ValueError("`--measure` needs a CUDA device, and there is none")
    deadline = time.monotonic() + seconds
    from stepbench.workloads import kernel_timings  # 1 s, of triton

    with file.open("x", encoding="utf-8") as stream:

        def keep(line: dict[str, Any]) -> None:
            print(json.dumps(line), file=stream, flush=True)

        def told(line: dict[str, Any]) -> None:
            keep(line)
            console.print(kernel_timings.sentence(line), markup=False)

        keep(kernel_timings.describe())
        left = kernel_timings.measure(kernel_timings.problems(), keep=told, deadline=deadline)
    terminal.say(f"{left} timings left when the time was up", sign="")
    return 0


def _refit(files: Sequence[Path], format_: str | None) -> int:
    """Fit the constants of the prediction to the times in bundles, print old and new ones, and keep what is better."""
    from stepbench.kernels.triton import measured  # 1.2 s, of torch and triton
    from stepbench.kernels.triton.limits import refit
    from stepbench.pipeline import bundle

    bundles = {}
    for file in files:
        try:
            bundles[str(file)] = bundle.read(file)
        except OSError as error:
            raise ValueError(f"{file}: cannot be read ({error.strerror})") from None
    # Spawned, because Triton's compiler and torch have threads that a fork would lose.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        kernels = measured.kernels(bundles, each=pool.map)
        fit = refit.refit(kernels, each=pool.map)
    rows: list[dict[str, Any]] = [
        {"constant": name, "old": old, "new": new, "at_bound": at_bound} for name, old, new, at_bound in fit.constants
    ]
    if format_ is not None:
        print_rows(rows, format_)
    else:
        table = Table("constant", "old", "new", "")
        for row in rows:
            note = "at its bound" if row["at_bound"] else ""
            table.add_row(row["constant"], f"{row['old']:.4g}", f"{row['new']:.4g}", note)
        print_wide(table)
    times = sum(len(kernel.launches) for kernel in kernels)
    terminal.say(f"error of {times} times of {len(kernels)} kernels before: {fit.before}", sign="")
    terminal.say(f"after: {fit.after}", sign="")
    if not fit.is_better:
        terminal.say("no other constants describe these times better: fitted.json stays as it is", sign="")
        return 0
    machines = ", ".join(dict.fromkeys(str(content["machine"]) for content in bundles.values()))
    refit.write(fit, f"{times} times of {len(kernels)} kernels on {machines}")
    terminal.say(
        "fitted.json is rewritten; run `stepbench kernels --compile` next, as figures.json is of the old constants",
        sign="",
    )
    return 0


def _head(options: argparse.Namespace) -> int:
    """Print the table of the kernel of head and loss, of all architectures."""
    if options.limits or options.architecture or options.head_dim or options.dtype:
        raise ValueError("`--head` takes no other option than `--compile`")
    from stepbench.experiments.attention import kernel_table
    from stepbench.kernels.triton import loss_figures

    if options.compile:
        loss_figures.write_figures([loss_figures.with_figures(each) for each in loss_figures.shipped_variants()])
    figures = loss_figures.read_figures()
    console.print(f"compiled on {figures['date']} with triton {figures['triton']}", style="dim")
    rows = figures["rows"]
    print_wide(_table_of(rows, [each for each in kernel_table.COLUMNS if each.heading not in ("head dim", "causal")]))
    return 0


def _table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[Any]) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column.heading, justify="right" if column.numeric else "left")
    for row in rows:
        bad = row.get("spill_bytes") or row.get("serialized")
        table.add_row(*(column.text(row) for column in columns), style="red" if bad else None)
    return table
