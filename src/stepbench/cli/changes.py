"""`stepbench changes`: cells that other code or software measured before, the old numbers against the new ones."""

from __future__ import annotations

import argparse
from typing import Any

from stepbench import terminal
from stepbench.cli.output import FAILED_EXIT_CODE, add_configuration, add_format, open_bench, print_tables
from stepbench.pipeline.state import States

FAILURES = ("slower", "faster", "unclear")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("changes", help="compare today's numbers with those of earlier code or software")
    parser.add_argument(
        "--since", metavar="WHEN", help="a date, a commit or a version (2.12, triton=3.6); default: the version before"
    )
    parser.add_argument(
        "--fail-if", choices=FAILURES, action="append", default=[], help="exit with 1 if a verdict is this; repeatable"
    )
    add_format(parser)
    add_configuration(parser)
    parser.set_defaults(run=changes)


def changes(options: argparse.Namespace) -> int:
    """Print a table for each cause; what could not be compared goes to standard error."""
    from stepbench.comparison import changes as found_by  # 0.3 s
    from stepbench.comparison import changes_document, known
    from stepbench.reporting.statistics import Verdict

    states = States(open_bench(options))
    points = known.load(states)
    found = found_by.find(points, states.bench.root, options.since)
    document = changes_document.build(points, found)
    print_tables(document.parts, options.format)
    for line in filter(None, (document.lead, document.last)):
        terminal.say(line, sign="")
    failed = any(found.has(Verdict(name.upper())) for name in options.fail_if)
    return FAILED_EXIT_CODE if failed else 0
