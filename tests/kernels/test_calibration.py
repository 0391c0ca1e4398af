"""The prediction of speeds against what others have measured on an H100 SXM and published; slow tests, a minute.

Two kernels. Triton's tutorial 06 is our algorithm in the same two loops, with other loads and an autotuner: our own
forward kernel stands for it, at the tile that it was tuned to. FlashAttention-2 is CUDA C++ with the older tensor
instructions (mma.sync) and asynchronous copies by threads: its compiled code is kept in `sass`, and how it was compiled
in its first line. Its backward pass is the only one whose speed is known.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import pytest

pytest.importorskip("triton")

from tests.testing import kept_sass

from stepbench.kernels.triton.compiling import programs_at_a_time
from stepbench.kernels.triton.limits import grid, predict, sass
from stepbench.kernels.triton.limits.machine import Machine
from stepbench.kernels.triton.tiles import Tile

Kernel = tuple[str, int, tuple[int, ...]]
pytestmark = pytest.mark.slow


class Error(NamedTuple):
    """Of predicted / published − 1."""

    mean: float
    deviation: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, errors: Sequence[float]) -> "Error":
        return cls(statistics.fmean(errors), statistics.pstdev(errors), min(errors), max(errors))


# -- Triton's tutorial -------------------------------------------------------------------------------------------------


class Published(NamedTuple):
    """Rates of a forward pass that somebody has published, not causal.

    Attributes:
        source: where.
        kernel: ours that is compared with it.
        points: context, batch · context, heads · head dim, TFLOP/s.
    """

    source: str
    kernel: Kernel
    points: list[tuple[int, int, int, float]]


LARGE, SMALL = ("forward", 128, (128, 128, 8, 3)), ("forward", 64, (128, 64, 4, 3))
RECENT = [
    Published("pytorch/benchmark, pull request 2391, July 2024", LARGE, [
        (512, 16_384, 2048, 328.9), (1024, 16_384, 2048, 389.7), (2048, 16_384, 2048, 433.7),
        (4096, 16_384, 2048, 458.4), (8192, 16_384, 2048, 470.7), (16_384, 16_384, 2048, 476.8)]),
    Published("meta-pytorch/tritonbench, issue 141, January 2025", LARGE, [(8192, 65_536, 2048, 469.1)]),
    Published("facebookexperimental/triton, pull request 205, July 2025, float16", LARGE, [
        (1024, 4096, 4096, 406.8), (2048, 8192, 4096, 427.8), (4096, 16_384, 4096, 459.6), (8192, 32_768, 4096, 464.4),
        (16_384, 65_536, 4096, 487.0)]),
]  # fmt: skip
# Of compilers before July 2024. The paper's were read off transcriptions of its charts.
EARLIER = [
    Published("pytorch/benchmark, pull request 2296, June 2024", LARGE, [
        (1024, 131_072, 1024, 353.4), (2048, 262_144, 1024, 385.4), (4096, 524_288, 1024, 404.7)]),
    Published("Shah et al., FlashAttention-3 (2024), figure 5", LARGE, [
        (512, 16_384, 2048, 323), (1024, 16_384, 2048, 372), (2048, 16_384, 2048, 389), (4096, 16_384, 2048, 389),
        (8192, 16_384, 2048, 392), (16_384, 16_384, 2048, 395)]),
    Published("Shah et al., FlashAttention-3 (2024), figure 5", SMALL, [
        (512, 16_384, 2048, 340), (1024, 16_384, 2048, 382), (2048, 16_384, 2048, 396), (4096, 16_384, 2048, 400),
        (8192, 16_384, 2048, 401), (16_384, 16_384, 2048, 403)]),
]  # fmt: skip


def errors_of(published: Sequence[Published]) -> list[float]:
    """Return predicted / published − 1 of every point."""
    found = []
    for each in published:
        about, text = kept_sass.read(kept_sass.path_of(*each.kernel))
        name, head_dim, shape = each.kernel
        programs = programs_at_a_time("sm_90", about["registers"], shape[2], about["shared_bytes"], 0)
        limits = predict.limits(sass.parse(text), name, head_dim, Tile(*shape), programs=programs)
        for context, tokens, width, rate in each.points:
            seconds = limits.seconds(context, is_causal=False, tokens=tokens, width=width)
            found.append(4 * tokens * width * context / seconds / 1e12 / rate - 1)
    return found


def test_forward_passes_of_tritons_tutorial() -> None:
    """Compilers from July 2024 on come within 4 %, earlier ones are up to 22 % slower than predicted; all together 6 %
    too high on average, with a standard deviation of 7 %."""
    recent, every = errors_of(RECENT), errors_of([*RECENT, *EARLIER])
    assert (len(recent), len(every)) == (12, 27)
    assert max(map(abs, recent)) < 0.04
    assert abs(statistics.fmean(recent)) < 0.02
    assert 0 < statistics.fmean(every) < 0.08
    assert statistics.pstdev(every) < 0.08
    assert -0.04 < min(every) <= max(every) < 0.22


# -- FlashAttention-2 --------------------------------------------------------------------------------------------------

# Shah et al., FlashAttention-3 (2024), figures 5 (a) and (c), 6 (a) and (b): TFLOP/s of FlashAttention-2, not causal,
# 16 bits, batch · context = 16 384, heads · head dim = 2048, at contexts of 512 to 16k.
CONTEXTS = (512, 1024, 2048, 4096, 8192, 16_384)
FLASH_ATTENTION_2 = {
    ("forward", 64): (282, 306, 318, 321, 322, 324),
    ("forward", 128): (309, 350, 362, 368, 370, 370),
    ("backward", 64): (198, 238, 264, 279, 287, 291),
    ("backward", 128): (214, 260, 291, 310, 318, 322),
}
MEMORY_BYTES_PER_S = 3.35e12  # NVIDIA H100 Tensor Core GPU datasheet, SXM


def predicted_rates(mode: str, head_dim: int) -> list[float]:
    """Return the predicted TFLOP/s at `CONTEXTS`, counted as the paper does: two products forward, five backward."""
    about, text = kept_sass.read(kept_sass.FOLDER / f"flash_attention_2-{mode}-{head_dim}.xz")
    tile, machine = Tile(about["tile"][0], about["tile"][1], about["warps"], 1), Machine()
    speed = grid.speed(sass.parse(text), tile.warps, about["programs"], {}, machine)
    is_forward = mode == "forward"
    rates = []
    for context in CONTEXTS:
        kernel, pairs = (
            "forward" if is_forward else "backward_keys",
            predict.TOKENS // context * predict.WIDTH // head_dim,
        )
        work = grid.shares(kernel, context, head_dim, tile, pairs, is_causal=False)
        if is_forward:
            work = [(plain - 1, masked) for plain, masked in work]  # the first tile of keys comes before the loop
        seconds = (grid.grid_cycles(work, speed, about["programs"]) + machine.launch_cycles) / machine.clock_hz
        if not is_forward:
            # Two more kernels: o and do are read, dq is cleared in float32, and read again and written in 16 bits.
            seconds += predict.TOKENS * predict.WIDTH * (2 + 2 + 4 + 4 + 2) / MEMORY_BYTES_PER_S
        products = 2 if is_forward else 5
        rates.append(2 * products * predict.TOKENS * predict.WIDTH * context / seconds / 1e12)
    return rates


# Stated in `limits`. Head dim 128 forward comes out too high: the model lets the tensor cores work 97 % of the time.
STATED = {
    ("forward", 64): (0.0, 0.06),
    ("forward", 128): (0.13, 0.25),
    ("backward", 64): (-0.08, 0.08),
    ("backward", 128): (-0.08, 0.08),
}


@pytest.mark.parametrize(("mode", "head_dim"), FLASH_ATTENTION_2)
def test_passes_of_flash_attention_2(mode: str, head_dim: int) -> None:
    published = FLASH_ATTENTION_2[mode, head_dim]
    pairs = zip(predicted_rates(mode, head_dim), published, strict=True)
    error = Error.of([predicted / rate - 1 for predicted, rate in pairs])
    low, high = STATED[mode, head_dim]
    assert low < error.lowest <= error.highest < high, error
