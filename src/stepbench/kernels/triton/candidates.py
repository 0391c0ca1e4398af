"""What tiles there are to choose from, and in which order they are worth timing.

A tile is compiled before it is timed, and is out if it spills or asks for more memory than there is. Where a cap on
registers would let one more program share a multiprocessor, the capped variant is a candidate too. Kernels whose wgmma
instructions ptxas has serialized stay: side by side they can still be the fastest.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stepbench.kernels.triton.compiling import SHARED_BYTES, compile_variant
from stepbench.kernels.triton.limits import predict, sass
from stepbench.kernels.triton.tiles import Tile

# Rows, columns, warps, stages.
_KEYS_SHAPES = list(itertools.product((16, 32, 64, 128), (64, 128), (4, 8), (2, 3, 4)))
_SHAPES = {
    "forward": itertools.product((64, 128, 256), (32, 64, 128), (4, 8), (2, 3, 4)),
    "backward_keys": _KEYS_SHAPES,
    "backward_queries": itertools.product((32, 64, 128), (32, 64, 128), (4, 8), (2, 3, 4)),
    "backward_fused": _KEYS_SHAPES,
    "backward_reduced": _KEYS_SHAPES,
}
_SINGLE_SHAPES = {
    "forward": itertools.product((64, 128), (32, 64), (4, 8), (2, 3)),
    "backward_keys": itertools.product((16, 32), (64, 128), (4, 8), (1, 2)),
    "backward_queries": itertools.product((64, 128), (16, 32), (4, 8), (1, 2)),
    "backward_fused": itertools.product((16, 32), (16, 32, 64), (4, 8), (1, 2)),
}
CANDIDATES = {name: [Tile(*shape) for shape in shapes] for name, shapes in _SHAPES.items()}
SINGLE_CANDIDATES = {name: [Tile(*shape) for shape in shapes] for name, shapes in _SINGLE_SHAPES.items()}
# Those for 16 bits that `limits` predicts to be the fastest on sm_90 with triton 3.7.1, of all that do not spill, at
# causal contexts of 2k and 16k, best first. Kept, so that a GPU is not held while hundreds are compiled and replayed.
LIKELIEST: dict[tuple[str, int], list[tuple[int, ...]]] = {
    ("forward", 64): [
        (128, 128, 8, 3, 128), (128, 64, 8, 3), (128, 64, 8, 4), (128, 64, 4, 3), (64, 64, 4, 4),
    ],
    ("backward_keys", 64): [
        (64, 64, 4, 3, 168), (32, 64, 4, 4), (32, 64, 4, 3), (32, 128, 8, 3), (64, 64, 4, 3),
    ],
    ("backward_queries", 64): [
        (128, 64, 8, 3), (128, 64, 8, 4), (64, 32, 4, 3), (64, 32, 4, 4), (128, 64, 4, 3),
    ],
    ("backward_fused", 64): [(64, 64, 4, 4), (64, 64, 4, 3), (64, 128, 8, 3), (64, 128, 8, 4)],
    ("backward_reduced", 64): [
        (32, 64, 4, 3), (32, 64, 4, 4), (64, 64, 4, 3), (64, 64, 4, 4), (64, 128, 8, 3),
    ],
    ("forward", 128): [
        (128, 128, 8, 3), (128, 32, 8, 4), (128, 32, 8, 3), (128, 64, 8, 2, 128), (128, 64, 8, 4),
    ],
    ("backward_keys", 128): [
        (64, 128, 8, 4), (64, 128, 8, 3), (32, 64, 4, 3), (32, 64, 4, 4), (64, 64, 4, 2),
    ],
    ("backward_queries", 128): [
        (128, 64, 8, 4), (128, 64, 8, 3), (128, 32, 8, 3, 128), (64, 32, 4, 4), (64, 32, 4, 3),
    ],
    ("backward_fused", 128): [(64, 64, 8, 2)],
    ("backward_reduced", 128): [(32, 128, 8, 3), (32, 128, 8, 4), (64, 64, 8, 2)],
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """What tiles are tuned for: a row of the table, at one shape.

    Attributes:
        context: Tq and Tk.
        tokens: batch · context.
        width: heads · head dim.
    """

    head_dim: int
    dtype: str = "bfloat16"
    is_causal: bool = True
    context: int = 4096
    tokens: int = 16_384
    width: int = 2048

    def inputs(self) -> tuple[Tensor, ...]:
        """Return q, k, v and a gradient of o, random, on the current GPU."""
        shape = max(self.tokens // self.context, 1), max(self.width // self.head_dim, 1), self.context, self.head_dim
        generator = torch.Generator("cuda").manual_seed(0)
        dtype = getattr(torch, self.dtype)
        return tuple(torch.randn(shape, dtype=dtype, device="cuda", generator=generator) for _ in range(4))


@dataclass(frozen=True)
class Candidate:
    """A tile that compiled to something worth running.

    Attributes:
        predicted: what `limits` says of it; None where it knows nothing.
    """

    tile: Tile
    predicted: predict.Limits | None = None

    def predicted_s(self, problem: Problem) -> float | None:
        """Return the predicted time of a launch in seconds."""
        if self.predicted is None:
            return None
        return self.predicted.seconds(
            problem.context, is_causal=problem.is_causal, tokens=problem.tokens, width=problem.width
        )


def likeliest(kernel: str, head_dim: int, dtype: str, shipped: Tile) -> list[Tile]:
    """Return the tiles that are timed before any other: five at most, with the shipped one six.

    Args:
        kernel: one of `tiles.KERNELS`.
        head_dim: D.
        dtype: such as "bfloat16".
        shipped: what the table holds, which comes first where nothing is predicted.
    """
    known = [] if dtype == "float32" else LIKELIEST.get((kernel, head_dim), [])
    return list(dict.fromkeys([*(Tile(*shape) for shape in known), shipped]))


def others(kernel: str, dtype: str, done: Sequence[Tile]) -> list[Tile]:
    """Return every other candidate; those with a cap come out of `appraise`."""
    every = (SINGLE_CANDIDATES if dtype == "float32" else CANDIDATES)[kernel]
    return [tile for tile in every if tile not in done]


def appraise(
    *, kernel: str, architecture: str, head_dim: int, dtype: str, tile: Tile, descriptors: bool, grouped: bool = False
) -> list[Candidate]:
    """Compile a tile, and one without a cap again with the cap that would let one more program share a multiprocessor.

    Returns:
        None, one or two candidates: those that compile, do not spill and fit the shared memory.
    """
    found = []
    caps = [tile.maxnreg]
    while caps:
        capped = replace(tile, maxnreg=caps.pop())
        try:
            compiled = compile_variant(
                kernel=kernel, architecture=architecture, head_dim=head_dim, dtype=dtype, tile=capped,
                descriptors=descriptors, grouped=grouped,
            )  # fmt: skip
        except Exception:  # noqa: S112 - a compiler dies of a tile in many ways, and then the tile is out
            continue
        if capped.maxnreg is None and (cap := cap_for_one_more(compiled.registers, compiled.programs, tile.warps)):
            caps.append(cap)
        if not is_clean(compiled.figures, SHARED_BYTES[architecture][0]):
            continue
        if capped.maxnreg is not None and compiled.programs <= 1:
            continue
        predicted = None
        if architecture == predict.ARCHITECTURE and dtype in predict.DTYPES:
            code = sass.parse(compiled.sass)
            predicted = predict.limits(code, kernel, head_dim, capped, programs=compiled.programs)
        found.append(Candidate(capped, predicted))
    return found


def cap_for_one_more(registers: int, programs: int, warps: int) -> int | None:
    """Return the most registers a thread may use for one more program to fit, None if that is out of reach.

    Beyond about 1.45 times the cap everything spilled that was tried.
    """
    cap = 65_536 // ((programs + 1) * warps * 32) // 8 * 8
    return cap if cap < registers <= 1.45 * cap else None


def is_clean(figures: dict[str, Any], shared_limit: int) -> bool:
    """Tell whether a candidate compiled to something worth running: serialized products are no fault by themselves.

    Args:
        figures: of `Compiled`.
        shared_limit: bytes of shared memory that a program may ask for.
    """
    return not figures["spill_bytes"] and figures["shared_bytes"] <= shared_limit


def in_order(candidates: Sequence[Candidate], problem: Problem, shipped: Tile) -> list[Candidate]:
    """Return the candidates, those with the shortest predicted time first; without a prediction, the shipped one."""
    times = {candidate.tile: candidate.predicted_s(problem) for candidate in candidates}
    return sorted(
        candidates,
        key=lambda each: ((time := times[each.tile]) is None, time or 0.0, each.tile != shipped),
    )
