"""`stepbench describe`: write what this machine is, for one that plans and reports for it."""

from __future__ import annotations

import argparse
from typing import Any

from stepbench import terminal
from stepbench.measure import devices
from stepbench.pipeline import machine


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "describe", help="write what this machine is to machines/NAME.json, for `machine: NAME` on another one"
    )
    parser.add_argument("name", nargs="?", default="auto", metavar="NAME", help="default: named after the hardware")
    parser.add_argument("--device", default="auto", choices=("auto", *devices.KINDS), help="default: auto")
    parser.set_defaults(run=describe)


def describe(options: argparse.Namespace) -> int:
    """Write the file and print its path."""
    if options.device != "cpu" and (sentence := devices.unasked()) is not None:
        terminal.say(sentence)
    print(machine.describe(options.root, options.device, options.name))
    return 0
