"""`stepbench tune`: search the fastest tile shapes on this GPU."""

from __future__ import annotations

import argparse
import functools
import math
import os
import time
from typing import Any

from stepbench import terminal
from stepbench.architectures import sixteen_bits
from stepbench.cli.kernels import check_triton
from stepbench.cli.output import console
from stepbench.measure import devices


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("tune", help="search the fastest tile shapes on this GPU and rewrite tiles.json")
    parser.add_argument("--head-dim", nargs="+", type=int, default=[64, 128], metavar="D", help="default: 64 128")
    parser.add_argument(
        "--dtype", nargs="+", metavar="NAME", help="default: bfloat16, or float16 on a GPU that does not compute in it"
    )
    parser.add_argument(
        "--seconds", type=float, default=math.inf, metavar="S", help="stop by then, and keep what was found"
    )
    parser.set_defaults(run=tune)


def tune(options: argparse.Namespace) -> int:
    """Search, print each choice, and rewrite the table."""
    check_triton()
    deadline = time.monotonic() + options.seconds
    os.environ |= devices.ENVIRONMENT  # or another GPU would be searched than cells are measured on
    import torch  # 1 s

    from stepbench.kernels.triton import tune as search  # 0.2 s, of triton

    if not torch.cuda.is_available():
        raise ValueError("tuning needs a CUDA device, and there is none")
    if torch.version.hip:
        raise ValueError(f"tile shapes are those of NVIDIA's GPUs, got {torch.cuda.get_device_name()}")
    if (sentence := devices.unasked()) is not None:
        terminal.say(sentence)
    dtypes = options.dtype or [sixteen_bits(torch.cuda.get_device_capability())]
    problems = list(search.shipped_problems(options.head_dim, dtypes))
    left = search.tune(problems, deadline=deadline, report=functools.partial(console.print, markup=False))
    if left:
        terminal.say(f"the time was up in {left} of {2 * len(problems)} searches: `stepbench tune` makes all", sign="")
    terminal.say(
        "tiles.json is rewritten; run `stepbench kernels --compile` next, as figures.json describes the old tiles",
        sign="",
    )
    return 0
