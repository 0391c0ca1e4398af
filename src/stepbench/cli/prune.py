"""`stepbench prune`: remove records that are in no configured grid, or histories beyond a bound."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stepbench import terminal
from stepbench.cli.output import add_configuration, add_format, console, open_bench, print_rows
from stepbench.pipeline import history, planning
from stepbench.pipeline.bench import RUN_LOCK, Bench
from stepbench.process import lock


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "prune", help="remove this machine's records that are in no configured grid, or with --history old ones"
    )
    parser.add_argument("--dry-run", action="store_true", help="only list them")
    parser.add_argument("--history", action="store_true", help="remove from the history what is beyond these bounds:")
    parser.add_argument("--keep", type=int, metavar="COUNT", help="how many records of each cell stay in its history")
    parser.add_argument("--days", type=float, metavar="DAYS", help="how old a record in the history may be")
    add_format(parser)
    add_configuration(parser)
    parser.set_defaults(run=prune)


def prune(options: argparse.Namespace) -> int:
    """Print the records, and remove them unless `--dry-run` is given."""
    bench = open_bench(options)
    if not options.dry_run:
        lock.hold(bench.root / RUN_LOCK, "this folder")
    found, what = _beyond(bench, options)
    if options.format is None:
        for path in found:
            console.print(str(path), markup=False)
    else:
        print_rows([{"path": str(path)} for path in found], options.format)
    if not options.dry_run:
        (history.remove if options.history else _remove)(bench.root / path for path in found)
    verb = "would remove" if options.dry_run else "removed"
    terminal.say(f"{verb} {len(found)} records {what}", sign="")
    return 0


def _remove(files: Iterable[Path]) -> None:
    """Remove records with what was stored next to them: traces and snapshots, of which one may have a gigabyte."""
    for file in files:
        for beside in file.parent.glob(f"{glob.escape(file.stem)}.*"):
            if beside.suffix != file.suffix:
                beside.unlink()
        file.unlink()


def _beyond(bench: Bench, options: argparse.Namespace) -> tuple[list[Path], str]:
    """Return what to remove, relative to the root, and what it is in words."""
    bounds = {"keep": options.keep, "days": options.days}
    if not options.history:
        if given := [name for name, value in bounds.items() if value is not None]:
            raise ValueError(f"`--{given[0]}` bounds the history and needs `--history`")
        return planning.left_over(bench), "that are in no configured grid"
    if all(value is None for value in bounds.values()):
        raise ValueError("`--history` needs a bound: `--keep COUNT`, `--days DAYS` or both")
    for name, value in bounds.items():
        if value is not None and not value >= 0:
            raise ValueError(f"`--{name}` must be 0 or more, got {value:g}")
    found = history.surplus(bench.root / "results" / bench.machine, most=options.keep, days=options.days)
    return [path.relative_to(bench.root) for path in found], "of the history"
