"""`stepbench kernels`: what each shipped Triton kernel costs; needs no GPU."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from stepbench.cli.output import add_format, console, print_rows, print_wide


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("kernels", help="print registers, spills and shared memory of the Triton kernels")
    parser.add_argument(
        "--compile", action="store_true", help="compile them now, and without a filter rewrite figures.json"
    )
    parser.add_argument(
        "--limits", action="store_true", help="print what limits those for 16 bits on an H100 (sm_90), predicted"
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
