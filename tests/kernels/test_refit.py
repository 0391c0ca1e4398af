"""The fit of the prediction's constants, to times that the model itself makes with constants that are known."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

from tests.testing import kept_sass

from stepbench.kernels.triton.compiling import programs_at_a_time
from stepbench.kernels.triton.limits import machine, refit, sass
from stepbench.kernels.triton.limits.machine import Machine
from stepbench.kernels.triton.limits.refit import BOUNDS, Error, Kernel, Launch
from stepbench.kernels.triton.limits.sass import Instruction
from stepbench.kernels.triton.tiles import Tile

TRUTH = {"clock_hz": 1.8e9, "launch_cycles": 4000, "drain": 50, "copy": 900, "copy_bytes": 24, "burst_bytes": 36}
LAUNCHES = [(64, 64, 64), (256, 256, 128), (1024, 2048, 256), (512, 16_384, 512)]  # context, tokens, width


def made(kind: str, **more: Any) -> Instruction:
    bits = {"stall": 1, "sets_written": 7, "sets_read": 7, "waits": (), "guarded": False}
    return Instruction(kind.upper(), kind, **(bits | more))


def loop(copies: int, products: int, *, waits: bool) -> tuple[Instruction, ...]:
    """Return a loop that asks for copies, and waits for them or not, and then for products."""
    body = [made("expect"), *(made("copy") for _ in range(copies))] if copies else []
    body += [made("phase", sets_written=0)] if waits else []
    body += [
        *(made("product", amount=64, closes=True, waits=(0,) if waits else ()) for _ in range(products)),
        made("wait", amount=0),
        made("other", stall=15),
    ]
    return (*body, made("branch", target=0, guarded=True), made("exit"))


def timed(name: str, tile: Tile, code: tuple[Instruction, ...], programs: int, truth: Machine) -> Kernel:
    """Return a kernel of head dim 64 with the times that the model gives it on a machine."""
    kernel = Kernel(name, 64, tile, programs, code, ())
    found = refit._limits(kernel, truth)
    launches = tuple(
        Launch(context, True, tokens, width, found.seconds(context, is_causal=True, tokens=tokens, width=width))
        for context, tokens, width in LAUNCHES
    )
    return dataclasses.replace(kernel, launches=launches)


def made_kernels(truth: Machine) -> list[Kernel]:
    """Return kernels that are held up by different things."""
    small, large = Tile(64, 64, 4, 2), Tile(256, 64, 4, 2)
    return [
        timed("forward", small, loop(0, 24, waits=False), 1, truth),  # products
        timed("forward", small, loop(0, 1, waits=False), 1, truth),  # waiting for a product
        timed("forward", small, loop(1, 1, waits=True), 1, truth),  # the latency of a copy
        timed("forward", large, loop(1, 1, waits=True), 1, truth),  # that and the rate of a single copy
        timed("forward", large, loop(2, 1, waits=True), 3, truth),  # the rate of all copies together
        timed("forward", large, loop(4, 12, waits=True), 2, truth),
    ]


def test_constants_that_are_known_come_out_again() -> None:
    truth = dataclasses.replace(Machine(), **TRUTH)
    fit = refit.refit(made_kernels(truth))
    assert abs(fit.before.worst) > 0.08
    assert abs(fit.after.worst) < 0.01
    assert fit.is_better
    found = {name: new for name, _, new, _ in fit.constants}
    assert found == pytest.approx(TRUTH, rel=0.05)
    assert not any(at_bound for *_, at_bound in fit.constants)
    assert {name: old for name, old, *_ in fit.constants} == {name: getattr(Machine(), name) for name in BOUNDS}


def test_a_machine_that_needs_no_change_gets_none() -> None:
    fit = refit.refit(made_kernels(Machine()))
    assert all(new == pytest.approx(old, rel=1e-3) for _, old, new, _ in fit.constants)
    assert fit.after.square <= 1e-12


def test_a_constant_stays_within_its_bounds() -> None:
    fit = refit.refit(made_kernels(dataclasses.replace(Machine(), clock_hz=4e9))[:3])
    (clock,) = [row for row in fit.constants if row[0] == "clock_hz"]
    assert clock[2] == pytest.approx(BOUNDS["clock_hz"][1], rel=1e-3)
    assert clock[3]
    assert all(low <= getattr(fit.new, name) <= high for name, (low, high) in BOUNDS.items())


def test_replays_are_shared_by_what_does_not_change_them() -> None:
    """Of six derivatives two need no replay: clock and start of the launch."""
    asked: list[Machine] = []

    def each(function: Any, kernels: Any, machines: Any) -> Any:
        machines = [next(machines) for _ in kernels]
        asked.append(machines[0])
        return map(function, kernels, machines)

    refit.refit(made_kernels(Machine()), each=each)
    assert len(asked) == len(set(asked)) == 1 + len(BOUNDS) - 2


def test_too_few_times_for_so_many_constants_are_refused() -> None:
    kernels = made_kernels(Machine())
    with pytest.raises(ValueError, match="must be at least 3 with 8 times for 6 constants, got 2 with 8"):
        refit.refit(kernels[:2])
    with pytest.raises(ValueError, match="got 6 with 6"):
        refit.refit([dataclasses.replace(kernel, launches=kernel.launches[:1]) for kernel in kernels])


def test_an_error_is_told_by_mean_deviation_and_worst() -> None:
    error = Error.of([1.1, 0.9, 1.3])
    assert str(error) == "mean +10.0%, standard deviation 16.3%, worst +30.0%"
    assert error.square == pytest.approx((0.01 + 0.01 + 0.09) / 3)


def test_what_is_kept_is_what_the_model_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = dataclasses.replace(Machine(), **TRUTH)
    fit = refit.Fit(Machine(), new, Error.of([1.1]), Error.of([1.02]))
    refit.write(fit, "8 times of 4 kernels on a test", tmp_path / "fitted.json")
    monkeypatch.setattr(machine, "FITTED", tmp_path / "fitted.json")
    assert machine._fitted() == TRUTH
    origin = json.loads((tmp_path / "fitted.json").read_text())["origin"]
    assert origin.startswith("8 times of 4 kernels on a test, 20")
    assert "worst +2.0%" in origin


def test_what_is_shipped_lies_within_the_bounds() -> None:
    shipped = json.loads(machine.FITTED.read_text())["constants"]
    assert list(shipped) == list(BOUNDS)
    assert all(low <= shipped[name] <= high for name, (low, high) in BOUNDS.items())


@pytest.mark.slow
@pytest.mark.timeout(900)  # minutes beside other work
def test_constants_come_out_again_from_real_kernels() -> None:
    """Not each constant: those that move the same times trade with each other. The times are met."""
    truth = dataclasses.replace(Machine(), **TRUTH)
    kernels = []
    for name, head_dim, shape in kept_sass.KEPT:
        about, text = kept_sass.read(kept_sass.path_of(name, head_dim, shape))
        programs = programs_at_a_time("sm_90", about["registers"], shape[2], about["shared_bytes"], 0)
        if programs > 1 or head_dim == 64:  # enough are left, and of several programs replays take long
            continue
        kernel = Kernel(name, head_dim, Tile(*shape), programs, tuple(sass.parse(text)), ())
        found = refit._limits(kernel, truth)
        launches = tuple(Launch(c, True, 16_384, 2048, found.seconds(c, is_causal=True)) for c in (1024, 16_384))
        kernels.append(dataclasses.replace(kernel, launches=launches))
    fit = refit.refit(kernels)
    assert fit.before.deviation > 2 * fit.after.deviation
    assert abs(fit.after.mean) < 0.01
    assert fit.new.clock_hz == pytest.approx(truth.clock_hz, rel=0.05)
    assert fit.new.copy == pytest.approx(truth.copy, rel=0.15)
