"""`stepbench merge`: bring the records of other machines into results/."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stepbench import terminal
from stepbench.cli.output import FAILED_EXIT_CODE, add_configuration, console, open_bench
from stepbench.pipeline import bundle
from stepbench.pipeline.bench import RUN_LOCK
from stepbench.process import lock


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("merge", help="bring the records of other machines' bundles into results/")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="written by `stepbench pack`")
    parser.add_argument(
        "--replace", action="store_true", help="replace records that differ; the old ones go to the history"
    )
    add_configuration(parser)
    parser.set_defaults(run=merge)


def merge(options: argparse.Namespace) -> int:
    """Print each record that differs from the one here, and how many were written."""
    bench = open_bench(options)
    lock.hold(bench.root / RUN_LOCK, "this folder")
    kept = 0
    for file in options.files:
        try:
            found = bundle.merge(bench, file, replace=options.replace)
        except OSError as error:
            raise ValueError(f"{file}: cannot be read ({error.strerror})") from None
        for path in found.conflicts:
            console.print(f"{path}  differs, {'replaced' if options.replace else 'kept'}", markup=False)
        kept += 0 if options.replace else len(found.conflicts)
        told = f"{len(found.written)} records written, {len(found.same)} unchanged, {len(found.conflicts)} differ"
        told += f", {found.earlier} added to the history" if found.earlier else ""
        terminal.say(f"{found.machine}: {told}", sign="")
    return FAILED_EXIT_CODE if kept else 0
