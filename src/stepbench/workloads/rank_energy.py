"""The energy of a step on ranks: each rank counts that of its own device, and the sum is that of the step."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import distributed

from stepbench.measure import clock, energy, nvml
from stepbench.measure.devices import KINDS
from stepbench.measure.measurement import Setting
from stepbench.parallel.replica import Replica
from stepbench.workloads.step import Step

BETWEEN_QUESTIONS_S = 0.05  # of work, before the ranks ask one another whether they are done


def of_step(made: Step, replica: Replica, setting: Setting, *, step_s: float) -> dict[str, Any] | None:
    """Return what this rank's counter says of one more step of a step that is warm; a collective.

    Args:
        made: the step.
        replica: what the strategy has made of it.
        setting: the device.
        step_s: how long one takes on this rank, about.

    Returns:
        `joules` of this rank's device (None if its counter stood), `steps`, `region_s` and `counter`. None where some
        device has no counter, and on a rank whose device another one counts: a CPU's counter is of all that runs on it.
    """
    on_gpu = KINDS[setting.device].is_gpu
    reads = on_gpu or int(os.environ["LOCAL_RANK"]) == 0
    position = torch.accelerator.current_device_index() if on_gpu else 0
    counter = energy.counter_of(setting.device, position) if reads else None
    is_missing, slowest_s = _most(setting, float(reads and counter is None), step_s)
    if is_missing:
        return None
    steps = max(1, round(BETWEEN_QUESTIONS_S / slowest_s)) if slowest_s else 1
    made.start_over()

    def work() -> None:
        for each in replica.traffic:  # nothing is under way: the clock has waited
            each.reset()
        for _ in range(steps):
            made.run()

    def agreed(is_over: bool) -> bool:
        return not _most(setting, float(not is_over))[0]

    with nvml.opened():
        found = energy.per_call(work, counter=counter, clock=clock.for_device(setting.device), agreed=agreed)
    if counter is None:
        return None
    joules, calls, region_s = found or (None, 0, 0.0)
    per_step = None if joules is None else joules / steps
    return {"joules": per_step, "steps": calls * steps, "region_s": region_s, "counter": counter.name}


def together(found: Sequence[Mapping[str, Any] | None]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the energy of a step on the devices of all ranks, and how it was found, from what each rank returned.

    Returns:
        As `stepbench.measure.energy.of_steps`, with the fewest steps and the shortest region of a device; both empty
        where it is not known of one.
    """
    counted = [each for each in found if each is not None]
    if not counted or any(each["joules"] is None for each in counted):
        return {}, {}
    scalars = {
        "step_energy_joules": sum(each["joules"] for each in counted),
        "energy_steps": min(each["steps"] for each in counted),
        "energy_region_s": min(each["region_s"] for each in counted),
    }
    return scalars, {"energy_counter": f"{counted[0]['counter']}, of {len(counted)}"}


def _most(setting: Setting, *values: float) -> list[float]:
    """Return the largest value of any rank, for each."""
    here = torch.tensor(values, device=setting.device, dtype=torch.float32)
    distributed.all_reduce(here, distributed.ReduceOp.MAX)
    return [float(each) for each in here.tolist()]
