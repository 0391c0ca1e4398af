"""`stepbench prune`: remove records that are in no configured grid."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from stepbench.cli.output import add_configuration, console, open_bench
from stepbench.pipeline import planning
from stepbench.pipeline.bench import RUN_LOCK
from stepbench.process import lock


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("prune", help="remove this machine's records that are in no configured grid")
    parser.add_argument("--dry-run", action="store_true", help="only list them")
    add_configuration(parser)
    parser.set_defaults(run=prune)


def prune(options: argparse.Namespace) -> int:
    """Print the records, and remove them unless `--dry-run` is given."""
    bench = open_bench(options)
    if not options.dry_run:
        lock.hold(bench.root / RUN_LOCK, "this folder")
    found = planning.left_over(bench)
    for path in found:
        console.print(str(path), markup=False)
        if not options.dry_run:
            (bench.root / path).unlink()
    verb = "would remove" if options.dry_run else "removed"
    print(f"{verb} {len(found)} records that are in no configured grid", file=sys.stderr)
    return 0
