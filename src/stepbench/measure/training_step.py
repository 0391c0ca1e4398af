"""How a training step is timed: by phases and as a whole, after the same warm-up.

This module receives callables and knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stepbench.measure import timing
from stepbench.measure.clock import Clock


def measure(
    phases: Mapping[str, Callable[[], object]], *, clock: Clock, warmup_steps: int, measured_steps: int
) -> dict[str, list[float]]:
    """Return the samples of a step that is made of `phases`, which run in their order.

    The first `warmup_steps` steps are run and timed by phases like the others but kept apart, since they show what
    warming up costs. Then come `measured_steps` steps by phases and as many as a whole.

    Args:
        phases: name -> work, such as `forward`, `backward`, `optimizer`.
        clock: the device's clock.
        warmup_steps: steps before anything counts; 0 is allowed.
        measured_steps: steps of either kind; at least 1.

    Returns:
        `<phase>_s` for each phase, `step_s` for the whole, and `warmup_<phase>_s`; seconds in run order.

    Raises:
        ValueError: a number of steps is out of range.
    """
    if warmup_steps < 0 or measured_steps < 1:
        raise ValueError(
            "`warmup_steps` must be at least 0 and `measured_steps` at least 1, "
            f"got {warmup_steps} and {measured_steps}"
        )

    def step() -> None:
        for work in phases.values():
            work()

    first = timing.time_phases(phases, clock=clock, repeats=warmup_steps)
    by_phase = timing.time_phases(phases, clock=clock, repeats=measured_steps)
    whole = timing.time_whole(step, clock=clock, repeats=measured_steps)
    return {
        **{f"{name}_s": samples for name, samples in by_phase.items()},
        "step_s": whole,
        **{f"warmup_{name}_s": samples for name, samples in first.items()},
    }
