"""The timing protocol against clocks that tell only what the protocol has asked for.

`AsynchronousDevice` is the device that the protocol exists for: a launch returns at once, and the work ends later. Each
of the two synchronisations is taken out of the source in turn, and the checks of this file must then fail (P2).
"""

import ast
import inspect
import itertools
import types
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.measure.fake_clock import FakeClock

from stepbench.measure import timing

LAUNCH_S = 1e-5
WORK_S = 0.5
EARLIER_S = 3.0


class AsynchronousDevice:
    """A clock and a device: a launch costs the host `LAUNCH_S`, and the device is then busy for its time."""

    name = "asynchronous"
    is_asynchronous = True

    def __init__(self) -> None:
        self.host_s = 100.0
        self.busy_until_s = 0.0

    def launch(self, duration_s: float) -> None:
        self.host_s += LAUNCH_S
        self.busy_until_s = max(self.busy_until_s, self.host_s) + duration_s

    def now(self) -> float:
        return self.host_s

    def synchronize(self) -> None:
        self.host_s = max(self.host_s, self.busy_until_s)


def check_that_the_work_and_nothing_else_is_counted(time_whole: Callable[..., list[float]]) -> None:
    device = AsynchronousDevice()
    durations = itertools.cycle([WORK_S, 2 * WORK_S])
    device.launch(EARLIER_S)  # a warm-up that nobody has waited for
    samples = time_whole(lambda: device.launch(next(durations)), clock=device, repeats=4)
    assert samples == pytest.approx([WORK_S, 2 * WORK_S] * 2, rel=1e-3)


def test_when_the_host_had_launched_everything_is_told_beside() -> None:
    launched: list[float] = []
    device = AsynchronousDevice()
    whole = timing.time_whole(lambda: device.launch(WORK_S), clock=device, repeats=2, launched_s=launched)
    assert whole == pytest.approx([WORK_S] * 2, rel=1e-3)
    assert launched == pytest.approx([LAUNCH_S] * 2)


def without_synchronization(which: int) -> Callable[..., list[float]]:
    """Return `timing.time_whole` without one of its calls of `clock.synchronize`."""
    tree = ast.parse(inspect.getsource(timing))
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "time_whole")
    (loop,) = (node for node in function.body if isinstance(node, ast.For))
    calls = [statement for statement in loop.body if ast.unparse(statement) == "clock.synchronize()"]
    assert len(calls) == 2
    loop.body.remove(calls[which])
    module = types.ModuleType("mutant")
    exec(compile(tree, "<mutant>", "exec"), module.__dict__)  # noqa: S102
    return module.time_whole


def test_the_work_and_nothing_else_is_counted() -> None:
    check_that_the_work_and_nothing_else_is_counted(timing.time_whole)


@pytest.mark.parametrize("which", [0, 1], ids=["before the start", "before the stop"])
def test_each_synchronization_is_needed(which: int) -> None:
    with pytest.raises(AssertionError):
        check_that_the_work_and_nothing_else_is_counted(without_synchronization(which))


def test_each_phase_is_counted_by_itself() -> None:
    device = AsynchronousDevice()
    device.launch(EARLIER_S)
    phases = {"forward": lambda: device.launch(1.0), "backward": lambda: device.launch(2.0)}
    samples = timing.time_phases(phases, clock=device, repeats=3)
    assert samples == {"forward": pytest.approx([1.0] * 3, rel=1e-3), "backward": pytest.approx([2.0] * 3, rel=1e-3)}


def test_the_order_is_sync_start_work_sync_stop() -> None:
    clock = FakeClock(itertools.count(0, 0.5))

    def work() -> None:
        clock.calls.append("work")

    assert timing.time_whole(work, clock=clock, repeats=2) == [0.5, 0.5]
    assert clock.calls == ["synchronize", "now", "work", "synchronize", "now"] * 2


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=20))
def test_samples_are_the_differences_of_the_ticks_in_run_order(milliseconds: list[int]) -> None:
    ticks = itertools.accumulate(itertools.chain.from_iterable((7, value) for value in milliseconds))
    samples = timing.time_whole(lambda: None, clock=FakeClock(t / 1000 for t in ticks), repeats=len(milliseconds))
    assert samples == pytest.approx([value / 1000 for value in milliseconds])


def test_no_repeat_is_no_sample_and_no_work() -> None:
    done = []
    assert timing.time_whole(lambda: done.append(1), clock=FakeClock([]), repeats=0) == []
    assert timing.time_phases({"a": lambda: done.append(1)}, clock=FakeClock([]), repeats=0) == {"a": []}
    assert done == []


def test_what_the_work_raises_is_raised() -> None:
    def work() -> None:
        raise ArithmeticError("the loss is not finite")

    with pytest.raises(ArithmeticError):
        timing.time_whole(work, clock=FakeClock(itertools.count()), repeats=1)


# -- work that is too short for the clock (P5) -------------------------------------------------------------------------


class CoarseClock(AsynchronousDevice):
    """A clock that ticks once in a microsecond, and a device that needs no launch."""

    def __init__(self, tick_s: float) -> None:
        super().__init__()
        self.tick_s = tick_s
        self.work_s = 0.0

    def run(self, duration_s: float) -> None:
        self.work_s += duration_s

    def now(self) -> float:
        return self.work_s // self.tick_s * self.tick_s


def test_a_short_operation_is_repeated_until_the_clock_sees_it() -> None:
    """A microsecond of work under a clock that ticks once in a microsecond."""
    clock = CoarseClock(tick_s=1e-6)
    loops = timing.loops_for(lambda: clock.run(1e-6), clock=clock, min_region_s=1e-4)
    assert loops == 128
    samples = timing.time_loops(lambda: clock.run(1e-6), clock=clock, repeats=5, loops=loops)
    assert samples == pytest.approx([1e-6] * 5, rel=0.02)


def test_an_operation_that_is_long_enough_is_not_repeated() -> None:
    clock = CoarseClock(tick_s=1e-6)
    assert timing.loops_for(lambda: clock.run(1e-3), clock=clock) == 1


def test_an_operation_that_the_clock_does_not_see_is_refused() -> None:
    clock = CoarseClock(tick_s=1.0)
    with pytest.raises(RuntimeError, match=r"the timed work must take measurable time, but 1048576 calls took under"):
        timing.loops_for(lambda: None, clock=clock, min_region_s=1e-4)


def test_a_clock_that_stands_still_or_runs_backwards_is_refused() -> None:
    with pytest.raises(RuntimeError, match="must take measurable time"):
        timing.loops_for(lambda: None, clock=FakeClock(itertools.repeat(5.0)), min_region_s=1e-4)
    with pytest.raises(RuntimeError, match="must take measurable time"):
        timing.loops_for(lambda: None, clock=FakeClock(itertools.count(0.0, -1.0)), min_region_s=1e-4)


@given(st.floats(1e-7, 1e-2))
def test_loops_are_the_least_power_of_two_that_is_long_enough(duration_s: float) -> None:
    clock = CoarseClock(tick_s=1e-12)
    loops = timing.loops_for(lambda: clock.run(duration_s), clock=clock, min_region_s=1e-4)
    assert loops & (loops - 1) == 0
    assert loops * duration_s >= 0.999e-4
    assert loops == 1 or loops // 2 * duration_s <= 1.001e-4
