"""Timing of a training step: by phases and as a whole, after the same warm-up.

The step is given as callables; this module imports no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stepbench.measure import timing
from stepbench.measure.clock import Clock
from stepbench.measure.paging import Paging


def measure(
    phases: Mapping[str, Callable[[], object]],
    *,
    clock: Clock,
    warmup_steps: int,
    measured_steps: int,
    after_warmup: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Return the samples of a step that consists of `phases`, which run in order.

    The first `warmup_steps` steps are timed by phases like the others but reported separately, because they show the
    cost of warming up. Then follow `measured_steps` steps timed by phases and as many timed as a whole.

    Args:
        phases: name -> work, such as `forward`, `backward`, `optimizer`.
        clock: the device's clock.
        warmup_steps: number of warm-up steps, at least 0.
        measured_steps: number of measured steps of each kind, at least 1.
        after_warmup: called once, before the first measured step.

    Returns:
        `<phase>_s` for each phase, `step_s` for the whole, `step_host_s` (on a device that works asynchronously, until
        the host had launched everything), and `warmup_<phase>_s`; seconds in run order. Of the
        measured ones also `<phase>_page_faults` and `<phase>_system_s`, and the same of `step`.

    Raises:
        ValueError: `warmup_steps` is negative or `measured_steps` is below 1.
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
    after_warmup()
    paged = {name: Paging() for name in (*phases, "step")}
    by_phase = timing.time_phases(phases, clock=clock, repeats=measured_steps, paged=paged)
    launched: list[float] | None = [] if clock.is_asynchronous else None
    whole = timing.time_whole(step, clock=clock, repeats=measured_steps, paged=paged["step"], launched_s=launched)
    return {
        **{f"{name}_s": samples for name, samples in by_phase.items()},
        "step_s": whole,
        **({} if launched is None else {"step_host_s": launched}),
        **{f"warmup_{name}_s": samples for name, samples in first.items()},
        **{key: values for name, counted in paged.items() for key, values in counted.samples(name).items()},
    }
