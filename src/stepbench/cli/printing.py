"""`stepbench print`: the report as a PDF, or a picture of its first screen."""

from __future__ import annotations

import argparse
from pathlib import Path

from stepbench.cli.output import FAILED_EXIT_CODE, console


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "print",
        help="print the report with a headless Chromium",
        description="Print a page into a .pdf, or take a picture of its first screen into a .png. Needs Chromium.",
    )
    page = Path("report/writeup.html")
    parser.add_argument("page", type=Path, nargs="?", default=page, help=f"the HTML file (default: {page})")
    parser.add_argument("--to", type=Path, metavar="FILE", help="default: beside the page, with the suffix .pdf")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the page and say where it is."""
    from stepbench.reporting import browser  # the report's modules are not read with the Snakefile

    page = options.root / options.page
    target = options.to or page.with_suffix(".pdf")
    try:
        browser.render(page, target)
    except (FileNotFoundError, RuntimeError) as error:
        console.print(f"stepbench: {error}", markup=False)
        return FAILED_EXIT_CODE
    console.print(str(target), markup=False)
    return 0
