"""`stepbench tune`: search the fastest tile shapes on this GPU."""

from __future__ import annotations

import argparse
import functools
from typing import Any

from stepbench import terminal
from stepbench.cli.kernels import check_triton
from stepbench.cli.output import console
from stepbench.measure import devices


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("tune", help="search the fastest tile shapes on this GPU and rewrite tiles.json")
    parser.add_argument("--head-dim", nargs="+", type=int, default=[64, 128], metavar="D", help="default: 64 128")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16"], metavar="NAME", help="default: bfloat16")
    parser.set_defaults(run=tune)


def tune(options: argparse.Namespace) -> int:
    """Search, print each choice, and rewrite the table."""
    check_triton()
    import torch  # 1 s

    from stepbench.kernels.triton import tune as search  # 0.2 s, of triton

    if not torch.cuda.is_available():
        raise ValueError("tuning needs a CUDA device, and there is none")
    if (sentence := devices.unasked()) is not None:
        terminal.say(sentence)
    problems = list(search.shipped_problems(options.head_dim, options.dtype))
    search.tune(problems, report=functools.partial(console.print, markup=False))
    terminal.say(
        "tiles.json is rewritten; run `stepbench kernels --compile` next, as figures.json describes the old tiles",
        sign="",
    )
    return 0
