"""`stepbench pack`: all records of this machine in one file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stepbench.cli.output import add_configuration, open_bench
from stepbench.pipeline import bundle


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("pack", help="write all records of this machine into one file")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="where to put it (default: here)")
    parser.add_argument("--history", action="store_true", help="with the records that were replaced")
    add_configuration(parser)
    parser.set_defaults(run=pack)


def pack(options: argparse.Namespace) -> int:
    """Write the file and print its path."""
    print(bundle.pack(open_bench(options), options.out, with_history=options.history))
    return 0
