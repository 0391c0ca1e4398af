"""`stepbench compare`: machines side by side, with prices."""

from __future__ import annotations

import argparse
from typing import Any

from stepbench.cli.output import add_configuration, add_format, console, open_bench, print_tables
from stepbench.pipeline.state import States


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("compare", help="compare machines, with prices where they are given")
    parser.add_argument("machines", nargs="+", metavar="MACHINE", help="the first is compared with each of the others")
    parser.add_argument(
        "--price", action="append", default=[], metavar="MACHINE=AMOUNT", help="of one device for an hour; repeatable"
    )
    add_format(parser)
    add_configuration(parser)
    parser.set_defaults(run=compare)


def compare(options: argparse.Namespace) -> int:
    """Print the comparison, to a pipe as Markdown."""
    from rich.markdown import Markdown  # 0.05 s

    from stepbench.comparison import document, machines  # 0.1 s, of numpy

    found = machines.priced(machines.load(States(open_bench(options))), options.price)
    known = {machine.name: machine for machine in found}
    if unknown := [name for name in options.machines if name not in known]:
        raise ValueError(f"a machine must be one of {', '.join(known)}, got {unknown[0]!r}")
    if len(options.machines) < 2:
        raise ValueError(f"`compare` needs two machines or more, got {options.machines[0]} alone")
    chosen = [known[name] for name in options.machines]
    if options.format is not None:
        print_tables([table for part in document.build(chosen).parts for table in part.tables], options.format)
        return 0
    text = document.document(chosen)
    console.print(Markdown(text) if console.is_terminal else text, markup=False)
    return 0
