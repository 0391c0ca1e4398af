"""Measure and inspect cells without Snakemake, compare machines, inspect and tune the Triton kernels.

stepbench measure end_to_end size=micro,context=64
stepbench cells --where size=micro
stepbench again --quality C
stepbench plan --price-per-hour 2.50
stepbench why 'results/…/size~micro,….json'
stepbench history 'results/…/size~micro,….json'
stepbench prune --dry-run
stepbench changes --since 2.12 --fail-if slower
stepbench ab --a main end_to_end size=micro,context=64
stepbench describe nvidia-h100-8x
stepbench compare nvidia-h200-1x nvidia-geforce-rtx-5090-2x --price nvidia-h200-1x=3.50
stepbench fits --size xl --context 1024 --memory 24GiB
stepbench print --to report.pdf
stepbench kernels --architecture sm_90 --head-dim 64 128
stepbench tune --head-dim 64 --dtype bfloat16
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from stepbench import terminal
from stepbench.cli import (
    ab,
    again,
    cells,
    changes,
    compare,
    describe,
    fits,
    gpu_check,
    history,
    kernels,
    measure,
    merge,
    pack,
    plan,
    printing,
    prune,
    tune,
    why,
)
from stepbench.cli.output import FAILED_EXIT_CODE, USAGE_EXIT_CODE
from stepbench.process import storage
from stepbench.process.lock import BusyError

COMMANDS = (
    measure,
    again,
    cells,
    plan,
    why,
    history,
    prune,
    pack,
    merge,
    changes,
    ab,
    compare,
    describe,
    fits,
    printing,
    kernels,
    tune,
    gpu_check,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Returns:
        0 on success, 1 on failure, 2 on a usage error; 130 after Ctrl-C and 143 after SIGTERM.
    """
    # Output that is not UTF-8 gets "?" for a sign that it lacks; an error would fail a cell that was measured.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (BusyError, storage.StorageError) as error:
        return _say(str(error), FAILED_EXIT_CODE)
    except ValueError as error:
        return _say(str(error), USAGE_EXIT_CODE)
    except OSError as error:
        if (sentence := storage.told(error)) is None:
            raise
        return _say(sentence, FAILED_EXIT_CODE)


def _parser() -> argparse.ArgumentParser:
    about, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="stepbench",
        description=about,
        epilog=f"examples:\n\n{examples}\nexit status: 0 on success, 1 on failure, 2 on a usage error",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # or the examples would be one paragraph
    )
    parser.add_argument("--root", type=Path, default=Path(), help="the folder that holds config.yaml (default: here)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return parser


def _say(text: str, code: int) -> int:
    terminal.say(text)
    return code
