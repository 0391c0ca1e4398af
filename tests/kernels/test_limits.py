"""The prediction of what limits a kernel: its parser, what no replay may beat, and the figures it must give again."""

import functools
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

pytest.importorskip("triton")

from tests.testing import kept_sass

from stepbench.kernels.triton.compiling import programs_at_a_time
from stepbench.kernels.triton.limits import grid, machine, predict, sass
from stepbench.kernels.triton.limits.machine import UNITS, Machine
from stepbench.kernels.triton.limits.replay import Quarter
from stepbench.kernels.triton.limits.sass import Instruction
from stepbench.kernels.triton.tiles import KERNELS, Tile, plan_for

Kernel = tuple[str, int, tuple[int, ...]]


def load(kernel: Kernel) -> tuple[dict[str, Any], list[Instruction]]:
    about, text = kept_sass.read(kept_sass.path_of(*kernel))
    return about, sass.parse(text)


@functools.cache
def predicted(kernel: Kernel, **options: Any) -> predict.Limits:
    about, code = load(kernel)
    return predict.limits(
        code, kernel[0], kernel[1], Tile(*kernel[2]),
        programs=programs_at_a_time("sm_90", about["registers"], kernel[2][2], about["shared_bytes"], 0), **options,
    )  # fmt: skip


# -- the parser --------------------------------------------------------------------------------------------------------


def line(text: str, control: int) -> str:
    """Return an instruction as cuobjdump prints it, with bits 105 to 125 set to `control`."""
    return f"        /*0000*/  {text} ;  /* 0x0000000000000000 */\n        /* {control << 41:#018x} */"


def test_control_bits_are_read() -> None:
    (x,) = sass.parse(line("@!P0 MUFU.EX2 R5, R4", 5 | 2 << 5 | 7 << 8 | 0b010001 << 11))
    assert x == Instruction("MUFU", "xu", stall=5, sets_written=2, sets_read=7, waits=(0, 4), guarded=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], R24, gsb0",
            {"kind": "product", "amount": 128, "bytes": 6144, "closes": True},
        ),
        (
            "HGMMA.64x64x16.F32.BF16 R24, R88, gdesc[UR4].tnspB, R24",
            {"kind": "product", "amount": 64, "bytes": 2048, "closes": False},
        ),
        ("WARPGROUP.DEPBAR.LE gsb0, 0x1", {"kind": "wait", "amount": 1}),
        ("WARPGROUP.ARRIVE", {"kind": "other"}),
        ("SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R5", {"kind": "phase"}),
        ("SYNCS.ARRIVE.TRANS64 RZ, [UR4], R5", {"kind": "expect"}),
        ("SYNCS.ARRIVE.TRANS64.A1T0 RZ, [UR4], RZ", {"kind": "barrier object"}),
        ("UTMALDG.4D [UR8], [UR4]", {"kind": "copy"}),
        ("UTMAREDG.4D.ADD [UR8], [UR4]", {"kind": "atomic"}),
        ("REDG.E.ADD.F32.FTZ.RN.STRONG.GPU [R4.64], R7", {"kind": "atomic"}),
        ("LDSM.16.M88.4 R4, [R5]", {"kind": "shared matrix", "amount": 4}),
        ("LDS.128 R4, [R5]", {"kind": "shared", "amount": 4}),
        ("LDGSTS.E [R4], [R6.64]", {"kind": "load", "amount": 1}),
        ("LDGDEPBAR", {"kind": "load group"}),
        ("DEPBAR.LE SB0, 0x2", {"kind": "load wait", "amount": 2}),
        ("STL.64 [R1], R4", {"kind": "shared", "amount": 2}),
        ("UIADD3 UR4, UR4, 0x1, URZ", {"kind": "uniform"}),
        ("UTMACMDFLUSH", {"kind": "other"}),
        ("IMAD R4, R5, R6, R7", {"kind": "imad"}),
        ("NOP", {"kind": "other"}),
        ("BRA 0x0", {"kind": "branch", "target": 0}),
        ("BRA 0xff0", {"kind": "branch", "target": -1}),
    ],
)
def test_kinds(text: str, expected: dict[str, Any]) -> None:
    (x,) = sass.parse(line(text, 1))
    assert {name: getattr(x, name) for name in expected} == expected


def test_what_is_no_sass_is_refused() -> None:
    with pytest.raises(ValueError, match="`sass` must hold instructions as cuobjdump --dump-sass prints them, got 'no"):
        sass.parse("nothing of the kind")
    with pytest.raises(ValueError, match="two words for each instruction, got one for 'NOP'"):
        sass.parse(line("NOP", 1).splitlines()[0])


@pytest.mark.parametrize("kernel", kept_sass.KEPT, ids=str)
def test_loops_and_products_of_real_kernels(kernel: Kernel) -> None:
    name, head_dim, (rows, columns, warps, *_) = kernel
    _, code = load(kernel)
    found = sass.loops(code)
    assert len(found) == (1 if name == "forward_one_loop" else 2)
    # Each loop makes every product of a round once: rows · columns · head dim over 64 rows (or columns) of a group of
    # four warps, N columns and 16 of depth an instruction.
    for first, last in found:
        operations = sum(64 * x.amount * 16 for x in code[first:last] if x.kind == "product") * warps // 4
        operations += sum(16 * 8 * 16 for x in code[first:last] if x.kind == "hmma") * warps  # 16 × 8 × 16 by a warp
        # Where two groups share 64 rows, Triton lets each make all of the scores and of their gradient.
        products = predict.PRODUCTS[name] + (2 if kernel == ("backward_fused", 128, (64, 64, 8, 2)) else 0)
        assert operations == products * rows * columns * head_dim
    assert len(sass.mask_branches(code, found[0])) == (name == "forward_one_loop")


# -- the replay --------------------------------------------------------------------------------------------------------


def made(kind: str, **more: Any) -> Instruction:
    return Instruction(
        kind.upper(), kind, **({"stall": 1, "sets_written": 7, "sets_read": 7, "waits": (), "guarded": False} | more)
    )


EXIT = made("exit")


def run(code: list[Instruction], programs: int = 1, warps: int = 4, **options: Any) -> Any:
    return Quarter(code, warps, programs, {}, Machine(**options)).run({})


def test_a_stall_and_a_scoreboard_are_waited_for() -> None:
    assert run([made("other", stall=9), EXIT]).ends == [9]
    slow = run([made("xu", sets_written=0), made("other", waits=(0,)), EXIT])
    assert slow.ends == [UNITS["xu"].cycles - 1 + UNITS["xu"].latency + 1]
    assert slow.waits["latency"] == UNITS["xu"].cycles + UNITS["xu"].latency - 2


def test_a_group_of_products_is_waited_for() -> None:
    m = Machine()
    done = run([made("product", amount=128, closes=True), made("wait", amount=0), EXIT])
    assert done.ends == [m.product + 128 / m.columns + m.drain + 1]
    assert done.busy["tensor"] == 64
    assert run([made("product", amount=128, closes=True), made("wait", amount=1), EXIT]).ends == [2]


def test_operands_from_shared_memory_can_be_what_limits_a_product() -> None:
    assert run([made("product", amount=8, bytes=8192, closes=True), EXIT]).busy["tensor"] == 64


def test_warps_of_a_program_meet_at_a_barrier_and_those_of_another_do_not() -> None:
    code = [made("xu"), made("barrier"), EXIT]
    assert run(code, warps=8).ends == [9 + 22, 9 + 23]  # the second warp's exponential waits for the pipe
    assert min(run(code, programs=2, warps=4).ends) == 1 + 22


@pytest.mark.parametrize("programs", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_no_pipe_works_more_than_there_are_cycles(seed: int, programs: int) -> None:
    """A bound is never beaten, whatever the instructions."""
    chance = random.Random(seed)
    kinds = [*(kind for kind in UNITS if kind != "load"), "product", "other", "barrier", "special"]
    code = [
        made(
            chance.choice(kinds), stall=chance.randrange(1, 5), sets_written=chance.randrange(8),
            waits=(chance.randrange(6),), amount=8 * chance.randrange(1, 9), closes=True,
        )
        for _ in range(200)
    ]  # fmt: skip
    result = run([*code, EXIT], programs=programs, warps=8)
    assert result.busy["issue"] == 201 * programs * 2
    tail = max(unit.cycles for unit in UNITS.values()) * 64 + 100  # what is under way at the end
    assert all(cycles <= result.cycles + tail for cycles in result.busy.values())
    assert sum(result.waits.values()) + result.busy["issue"] == pytest.approx(result.cycles)


def some(kernels: Sequence[Kernel]) -> list[Any]:
    """Return every fifth kernel for `make test`, and the others as slow tests."""
    return [kernel if i % 5 == 0 else pytest.param(kernel, marks=pytest.mark.slow) for i, kernel in enumerate(kernels)]


@pytest.mark.parametrize("kernel", some(kept_sass.KEPT), ids=str)
def test_no_prediction_beats_what_the_pipes_can_do(kernel: Kernel) -> None:
    found = predicted(kernel)
    assert all(0 <= share <= 1.001 for share in found.busy.values())
    assert sum(found.waits.values()) + found.busy["issue"] == pytest.approx(1, abs=0.01)
    peak = 4096 * machine.MULTIPROCESSORS * Machine().clock_hz / 1e12
    for is_causal in (True, False):
        rates = [found.rate(context, is_causal=is_causal) for context in predict.CONTEXTS]
        assert rates == sorted(rates)  # longer is never slower
        assert rates[-1] < peak


def test_faster_units_are_never_slower() -> None:
    kernel = ("backward_queries", 128, (128, 128, 8, 2))
    slow, fast = (predicted(kernel, machine=Machine(copy=copy)) for copy in (900, 400))
    assert fast.rate(4096, is_causal=True) > slow.rate(4096, is_causal=True)
    assert fast.waits["copy"] < slow.waits["copy"]


class Figures(NamedTuple):
    """What the model's prototype said of a kernel; shares have two decimals there.

    Attributes:
        full: TFLOP/s at 2k and 16k, not causal.
        causal: likewise.
        cycles: of a round of the loop without a mask, with all programs side by side.
        busy: shares of tensor cores, exponential unit, issue port and L2 cache in that loop, where it printed them.
        product: share of waiting for products in that loop, likewise.
    """

    full: tuple[int, int]
    causal: tuple[int, int]
    cycles: int
    busy: tuple[float, ...] = ()
    product: float | None = None


PROTOTYPE = {
    ("forward", 64, (128, 128, 8, 3)): Figures((294, 323), (233, 321), 2716, (0.38, 0.39, 0.34, 0.43), 0.29),
    ("forward", 64, (128, 64, 8, 3)): Figures((459, 492), (365, 473), 1787),
    ("backward_keys", 64, (64, 128, 8, 3)): Figures((374, 422), (318, 424), 2069, (0.49, 0.25, 0.32, 0.32), 0.30),
    ("backward_queries", 64, (128, 128, 8, 3)): Figures((467, 531), (355, 524), 2458, (0.62, 0.42, 0.34, 0.48), 0.30),
    ("backward_fused", 64, (64, 128, 8, 3)): Figures((310, 335), (273, 339), 3273, (0.39, 0.16, 0.27, 0.20), 0.29),
    ("forward", 128, (128, 128, 8, 3)): Figures((438, 480), (328, 457), 3656, (0.56, 0.29, 0.27, 0.64), 0.46),
    ("backward_keys", 128, (64, 128, 8, 3)): Figures((524, 589), (428, 567), 2965, (0.69, 0.17, 0.25, 0.42), 0.46),
    ("backward_queries", 128, (128, 128, 8, 2)): Figures((393, 413), (324, 399), 6401, (0.48, 0.16, 0.14, 0.37), 0.30),
    ("backward_queries", 128, (128, 64, 8, 4)): Figures((575, 635), (442, 608), 2066),
    ("forward", 64, (128, 64, 4, 3)): Figures((411, 436), (332, 420), 2020),
    ("backward_keys", 64, (64, 64, 4, 3, 168)): Figures((600, 672), (513, 649), 1982),
    ("backward_queries", 64, (128, 64, 8, 3)): Figures((643, 698), (517, 671), 1887),
    ("backward_reduced", 64, (32, 64, 4, 4)): Figures((452, 479), (400, 466), 1750),
    ("backward_fused", 128, (64, 64, 8, 2)): Figures((175, 181), (163, 185), 6090, (0.38, 0.08, 0.20, 0.20), 0.26),
    ("backward_reduced", 128, (32, 128, 8, 3)): Figures((373, 395), (320, 384), 2788),
}


@pytest.mark.parametrize("kernel", PROTOTYPE, ids=str)
def test_the_prototypes_figures_come_out_again(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 5 %: also the fused kernels, of which this model says that their atomics cost up to 2 %."""
    expected = PROTOTYPE[kernel]

    def rates(found: predict.Limits, *, is_causal: bool) -> list[float]:
        return [found.rate(context, is_causal=is_causal) for context in (2048, 16_384)]

    found = predicted(kernel)
    assert rates(found, is_causal=True) == pytest.approx(expected.causal, rel=0.05)
    if kernel[0] == "backward_fused":  # the rest as in the prototype, which took REDG for nothing
        monkeypatch.setitem(sass._KIND_OF, "REDG", "other")
        found = predicted.__wrapped__(kernel)
        assert rates(found, is_causal=True) == pytest.approx(expected.causal, rel=0.01)
    assert rates(found, is_causal=False) == pytest.approx(expected.full, rel=0.05)
    assert found.round_cycles == pytest.approx(expected.cycles, rel=0.05)
    if expected.busy:
        busy = [found.busy[name] for name in ("tensor", "exponential", "issue", "L2")]
        assert busy == pytest.approx(expected.busy, abs=0.006)  # half a digit of the prototype's two
        assert found.waits["product"] == pytest.approx(expected.product, abs=0.02)  # a sum of two rounded shares


def test_the_prototypes_figures_are_of_every_kernel_that_is_shipped() -> None:
    """At the head dims that papers show; the loop that is optional was not printed."""
    for head_dim in (64, 128):
        plan = plan_for("sm_90", head_dim, "bfloat16", True, series="3.7")
        for name in KERNELS:
            tile = getattr(plan, name)
            assert (name, head_dim, tuple(tile.shape)) in PROTOTYPE
    assert set(PROTOTYPE) == {kernel for kernel in kept_sass.KEPT if kernel[0] != "forward_one_loop"}


def test_what_the_second_loop_costs_is_seen() -> None:
    """One loop for all keys is predicted to gain where the second loop's start is much of the work."""
    one, two = (predicted((name, 128, (128, 128, 8, 3))) for name in ("forward_one_loop", "forward"))
    gains = [one.rate(context, is_causal=True) / two.rate(context, is_causal=True) for context in (1024, 16_384)]
    assert gains == pytest.approx([1.14, 1.0], abs=0.03)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [("row_statistics", "`kernel` must be one of forward, .*, got 'row_statistics'"), ("forward", "must hold wgmma")],
)
def test_what_cannot_be_predicted(kernel: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict.limits([EXIT], kernel, 64, Tile(64, 64, 4, 2), programs=1)


# -- the grid ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("tile", [(128, 64), (64, 128), (64, 64)], ids=str)
@pytest.mark.parametrize("kernel", ["forward", "backward_keys", "backward_queries"])
def test_every_tile_is_visited_once(kernel: str, tile: tuple[int, int], is_causal: bool) -> None:
    length, pairs = 512, 5
    rows, columns = tile
    work = grid.shares(kernel, length, 64, Tile(rows, columns, 4, 2), pairs, is_causal=is_causal)
    seen = sum(plain + masked for plain, masked in work)
    visible = sum(
        not is_causal or column <= row + rows - 1
        for row in range(0, length, rows)
        for column in range(0, length, columns)
    )
    assert seen == pairs * visible
    assert all(masked == 0 for _, masked in work) != is_causal


def test_a_grid_takes_as_long_as_its_work_at_least_and_rounds_of_programs_at_most() -> None:
    speed = grid.Speed(100.0, 50.0, 10.0, ((20.0, 30.0), (25.0, 40.0)), masked=1, busy={}, waits={})
    single = 100 + 3 * 20 + 50 + 1 * 25 + 10
    assert grid.grid_cycles([(3, 1)], speed, 2) == pytest.approx(single)
    assert grid.grid_cycles([(3, 1)] * machine.MULTIPROCESSORS, speed, 2) == pytest.approx(single)
    doubled = grid.grid_cycles([(3, 1)] * 2 * machine.MULTIPROCESSORS, speed, 2)
    assert doubled == pytest.approx(100 + 3 * 30 + 50 + 40 + 10)
