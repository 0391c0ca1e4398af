"""The figures of one kernel on an H100: what its pipes do, what it waits for, and how fast it would run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stepbench.kernels.triton.limits.grid import WALKS_KEYS, Speed, grid_cycles, shares, speed
from stepbench.kernels.triton.limits.machine import Machine
from stepbench.kernels.triton.limits.sass import Instruction
from stepbench.kernels.triton.tiles import Tile, split_head_dim

ARCHITECTURE = "sm_90"
DTYPES = ("bfloat16", "float16")
PRODUCTS = {
    "forward": 2, "forward_one_loop": 2, "backward_keys": 4, "backward_queries": 3, "backward_fused": 5,
    "backward_reduced": 5,
}  # fmt: skip
TOKENS, WIDTH = 16_384, 2048  # batch · context and heads · head dim of the papers' figures
BAND = 0.15  # share by which a predicted rate may be off before it says anything
CONTEXTS = (1024, 2048, 4096, 8192, 16_384)  # of the rates that are kept, all causal
PIPES = {"tensor": "tensor", "exponential": "xu", "L2": "l2", "issue": "issue"}


@dataclass(frozen=True)
class Limits:
    """What limits a kernel.

    Attributes:
        programs: at a time on a multiprocessor.
        busy: share of the cycles in the loop without a mask in which each works: tensor, exponential, issue, L2.
        waits: share of these cycles in which nothing issues, by what is waited for: product, copy, barrier, latency,
            issue, pipe.
        round_cycles: of a round of that loop, with all programs side by side.
        speed: for `rate`.
        machine: likewise.
    """

    kernel: str
    head_dim: int
    tile: Tile
    programs: int
    busy: dict[str, float]
    waits: dict[str, float]
    round_cycles: float
    speed: Speed
    machine: Machine

    def seconds(self, context: int, *, is_causal: bool, tokens: int = TOKENS, width: int = WIDTH) -> float:
        """Return the predicted time of a launch on `tokens` = batch · context and `width` = heads · head dim."""
        pairs = max(tokens // context, 1) * max(width // self.head_dim, 1)
        work = shares(self.kernel, context, self.head_dim, self.tile, pairs, is_causal=is_causal)
        cycles = grid_cycles(work, self.speed, self.programs) + self.machine.launch_cycles
        return cycles / self.machine.clock_hz

    def rate(self, context: int, *, is_causal: bool) -> float:
        """Return the predicted TFLOP/s at `TOKENS` and `WIDTH`, counting every product that the kernel makes."""
        width = WIDTH // self.head_dim * self.head_dim
        operations = 2 * PRODUCTS[self.kernel] * TOKENS * width * context * (0.5 if is_causal else 1.0)
        return operations / self.seconds(context, is_causal=is_causal) / 1e12

    @property
    def figures(self) -> dict[str, Any]:
        """Return what is kept of it: shares, cycles of a round, and causal rates in TFLOP/s by context."""
        return {
            "busy": {name: round(share, 3) for name, share in self.busy.items()},
            "waits": {name: round(share, 3) for name, share in sorted(self.waits.items())},
            "round_cycles": round(self.round_cycles),
            "tflops": {str(context): round(self.rate(context, is_causal=True), 1) for context in CONTEXTS},
        }


def limits(
    code: Sequence[Instruction], kernel: str, head_dim: int, tile: Tile, *, programs: int,
    machine: Machine = Machine(),  # noqa: B008 - it is frozen
) -> Limits:  # fmt: skip
    """Predict what limits a kernel.

    Args:
        code: of `sass.parse`.
        kernel: a key of `PRODUCTS`.
        head_dim: D.
        tile: that it was compiled for.
        programs: at a time on a multiprocessor.
        machine: other constants than the fitted ones.

    Raises:
        ValueError: `kernel` is none of these, or the code has no loop with products.
    """
    if kernel not in PRODUCTS:
        raise ValueError(f"`kernel` must be one of {', '.join(PRODUCTS)}, got {kernel!r}")
    if not any(x.kind == "product" for x in code):
        raise ValueError(f"`code` must hold wgmma products, got none in {len(code)} instructions")
    found = speed(code, tile.warps, programs, copied_bytes(code, kernel, head_dim, tile), machine)
    busy = {name: found.busy.get(pipe, 0.0) for name, pipe in PIPES.items()}
    round_cycles = found.rounds[1 - found.masked][-1]
    return Limits(kernel, head_dim, tile, programs, busy, dict(found.waits), round_cycles, found, machine)


def copied_bytes(code: Iterable[Instruction], kernel: str, head_dim: int, tile: Tile) -> dict[int, int]:
    """Return what each copy brings: first the tiles that a program owns, then those that it walks over."""
    chunks = [chunk for chunk in split_head_dim(head_dim) if chunk]
    owned, walked = (tile.rows, tile.columns) if kernel in WALKS_KEYS else (tile.columns, tile.rows)
    own = (1 if kernel.startswith("forward") else 2) * len(chunks)
    copies = [i for i, x in enumerate(code) if x.kind == "copy"]
    return {
        at: 2 * (owned if number < own else walked) * chunks[number % len(chunks)] for number, at in enumerate(copies)
    }
