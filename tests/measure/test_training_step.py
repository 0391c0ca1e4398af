import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.measure.fake_clock import FakeClock

from stepbench.measure import paging, training_step


def scripted(names: tuple[str, ...]) -> tuple[FakeClock, dict[str, Callable[[], object]]]:
    """Return a clock that ticks once a second, and phases that note in the clock's calls that they ran."""
    clock = FakeClock(itertools.count(0.0))
    return clock, {name: (lambda name=name: clock.calls.append(name)) for name in names}


def seconds(samples: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return the samples that the clock has given."""
    return {key: values for key, values in samples.items() if not key.endswith(("_page_faults", "_system_s"))}


@given(st.integers(0, 5), st.integers(1, 5))
def test_warm_up_is_outside_and_exactly_so_many_steps_are_counted(warmup_steps: int, measured_steps: int) -> None:
    clock, phases = scripted(("forward", "backward", "optimizer"))
    samples = training_step.measure(phases, clock=clock, warmup_steps=warmup_steps, measured_steps=measured_steps)
    assert {name: len(values) for name, values in samples.items()} == {
        "forward_s": measured_steps,
        "backward_s": measured_steps,
        "optimizer_s": measured_steps,
        "step_s": measured_steps,
        "warmup_forward_s": warmup_steps,
        "warmup_backward_s": warmup_steps,
        "warmup_optimizer_s": warmup_steps,
        **{f"{name}_{unit}": measured_steps for name in (*phases, "step") for unit in ("page_faults", "system_s")},
    }
    ran = [call for call in clock.calls if call in phases]
    assert ran == ["forward", "backward", "optimizer"] * (warmup_steps + 2 * measured_steps)


def test_warm_up_comes_first_then_phases_then_whole_steps() -> None:
    """Each kind of step lasts its own number of ticks, so that a sample tells which step it came from."""
    durations = iter([100, 100, 200, 200, 1, 2, 1, 2, 30, 30])
    ticks = itertools.accumulate(itertools.chain.from_iterable((0, duration) for duration in durations))
    samples = training_step.measure(
        {"forward": lambda: None, "backward": lambda: None}, clock=FakeClock(ticks), warmup_steps=2, measured_steps=2
    )
    assert seconds(samples) == {
        "warmup_forward_s": [100, 200],
        "warmup_backward_s": [100, 200],
        "forward_s": [1, 1],
        "backward_s": [2, 2],
        "step_s": [30, 30],
    }


def test_the_order_of_a_whole_protocol() -> None:
    clock, phases = scripted(("forward", "backward"))
    training_step.measure(phases, clock=clock, warmup_steps=1, measured_steps=1)
    timed = lambda *work: ["synchronize", "now", *work, "synchronize", "now"]  # noqa: E731
    by_phase = timed("forward") + timed("backward")
    assert clock.calls == by_phase + by_phase + timed("forward", "backward")


def test_one_phase_is_a_step_too() -> None:
    clock, phases = scripted(("forward",))
    samples = training_step.measure(phases, clock=clock, warmup_steps=0, measured_steps=3)
    assert seconds(samples) == {"forward_s": [1.0] * 3, "step_s": [1.0] * 3, "warmup_forward_s": []}


@pytest.mark.parametrize(("warmup_steps", "measured_steps"), [(-1, 1), (0, 0), (0, -1)])
def test_numbers_of_steps_out_of_range_are_refused_before_any_work(warmup_steps: int, measured_steps: int) -> None:
    clock, phases = scripted(("forward",))
    with pytest.raises(ValueError, match="`warmup_steps` must be at least 0 and `measured_steps` at least 1, got"):
        training_step.measure(phases, clock=clock, warmup_steps=warmup_steps, measured_steps=measured_steps)
    assert clock.calls == []


def test_page_faults_and_system_time_are_those_of_the_measured_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work itself moves the counters: 3 faults and 0.5 s in each forward pass, 40 and 1 s in each backward pass."""
    counted = {"faults": 0.0, "system_s": 0.0}

    def work(faults: int, system_s: float) -> Callable[[], None]:
        def run() -> None:
            counted["faults"] += faults
            counted["system_s"] += system_s

        return run

    monkeypatch.setattr(paging, "read", lambda: paging.Reading(int(counted["faults"]), counted["system_s"]))
    told: list[float] = []
    samples = training_step.measure(
        {"forward": work(3, 0.5), "backward": work(40, 1.0)},
        clock=FakeClock(itertools.count(0.0)),
        warmup_steps=2,
        measured_steps=3,
        after_warmup=lambda: told.append(counted["faults"]),
    )
    assert told == [2 * 43]
    assert samples["forward_page_faults"] == [3] * 3
    assert samples["backward_page_faults"] == [40] * 3
    assert samples["step_page_faults"] == [43] * 3
    assert samples["forward_system_s"] == [0.5] * 3
    assert samples["step_system_s"] == [1.5] * 3
