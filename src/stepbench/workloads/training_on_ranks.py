"""What each rank does for a cell of data-parallel, sharded or FSDP training: check, time, draw, watch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import distributed

from stepbench.measure import allocator_memory, clock, fit, memory, predicted_memory, rank_timeline, timing
from stepbench.measure.clock import Clock
from stepbench.measure.measurement import Setting
from stepbench.measure.paging import Paging
from stepbench.parallel.strategies import strategy
from stepbench.workloads import equivalence, rank_energy, rank_step
from stepbench.workloads.predicted import UnpredictableError
from stepbench.workloads.spec import StepSpec
from stepbench.workloads.step import Step

BESIDE_ROUNDS = 2  # times the protocol's steps: a ratio near 1 needs more of them
OWN, OTHER = "paired_s", "beside_s"


def run(
    *,
    setting: dict[str, Any],
    spec: dict[str, Any],
    beside: dict[str, Any] | None = None,
    without_communication: bool = False,
    watch: bool = False,
) -> dict[str, Any]:
    """Check that the ranks compute one process' step, time it by phases and whole, and do what else is asked for.

    Args:
        setting: a plain `Setting`.
        spec: a plain `StepSpec`.
        beside: another one, to be timed in turn with the first.
        without_communication: whether to time, in turn with the whole steps, steps whose gradients stay where they are.
        watch: whether to predict and watch the step's memory as well.

    Returns:
        `samples` of this rank: `forward_s`, `backward_s`, `synchronization_s`, `optimizer_s`, `step_s`, perhaps
        `without_communication_s`, `paired_s` and `beside_s`; `loss_nats`; for strategies that count `comm_wait_s`, and
        `<operation>_wait_s` and `<operation>_busy_s` (of the whole steps); page faults and system time of the phases
        and of each kind of steps. `scalars`: those of the equivalence check and what was counted. `lanes`: one step
        over time. `energy`: see `rank_energy.of_step`. `predicted` and `measured`: bytes, and `timeline`, where asked
        for; `unpredicted`: why there is no prediction. `beside_reason`: why the other one was not timed.
    """
    given, own = Setting(**setting), StepSpec.of_plain(spec)
    checked = equivalence.check(own, given)
    memory.collect(given.device)  # a stage ends empty, or the next one would have to fit beside it
    # Elsewhere parameters travel as well, whatever becomes of the gradients.
    without_communication &= strategy(str(own.strategy)).sends_gradients_alone
    found = _time(own, given, without_communication=without_communication)
    found["scalars"] = {**checked, **found["scalars"]}
    memory.collect(given.device)
    if watch:
        found |= _watch(own, given)
        memory.collect(given.device)
    if beside is not None:  # last, because only this stage holds two models
        peak_bytes = found["scalars"].get("peak_memory_bytes")
        if (reason := _no_room_for_two(peak_bytes, given)) is not None:
            return {**found, "beside_reason": reason}
        try:
            found["samples"] |= _time_in_turn({OWN: own, OTHER: StepSpec.of_plain(beside)}, given)
        except Exception as error:  # what a cell is about is measured; ranks that are alike fail alike
            line = next(iter(str(error).strip().splitlines()), "")
            found["beside_reason"] = f"timed in turn they raised {type(error).__name__}{': ' if line else ''}{line}"
    return found


def _no_room_for_two(peak_bytes: int | None, setting: Setting) -> str | None:
    """Return why a second model does not fit beside the first on some rank, or None; a collective."""
    capacity_bytes = fit.capacity_bytes(setting.device)
    if peak_bytes is None or capacity_bytes is None:
        return None
    most = torch.tensor(float(peak_bytes), device=setting.device)
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    if 2 * float(most) <= fit.usable_bytes(capacity_bytes):
        return None
    return (
        f"its own step takes {float(most) / fit.GIB:.1f} GiB, and two of them do not fit into "
        f"{capacity_bytes / fit.GIB:.1f} GiB in turn"
    )


def _time(spec: StepSpec, setting: Setting, *, without_communication: bool) -> dict[str, Any]:
    memory.reset_peak(setting.device)
    measured = setting.protocol["measured_steps"]
    kinds = 3 if without_communication else 2
    # Each round runs a step of every kind, so fewer rounds warm up as many steps.
    warmup = -(-setting.protocol["warmup_steps"] // kinds)
    steps = (warmup + measured) * kinds + rank_timeline.PROFILED_STEPS
    step, replica = rank_step.build(spec, setting, steps=steps)
    timer, traffic = clock.for_device(setting.device), replica.traffic
    samples: dict[str, list[float]] = {}
    counted: dict[str, float] = {}
    alone = ["without_communication"] if without_communication else []
    paged = {name: Paging() for name in (*step.phases, "step", *alone)}
    calls = memory.AllocatorCalls(setting.device)
    for number in range(warmup + measured):
        if number == warmup:
            paged = {name: Paging() for name in paged}
            calls.start()
        distributed.barrier()
        by_phase = timing.time_phases(step.phases, clock=timer, repeats=1, paged=paged)
        found = {f"{name}_s": values[0] for name, values in by_phase.items()}
        for each in traffic:
            each.reset()
        found["step_s"] = _together(step.run, timer, paged["step"])
        found |= _waited(traffic)
        if traffic:
            counted["collectives_per_step"] = sum(each.calls for each in traffic)
            counted["payload_bytes"] = sum(each.payload_bytes for each in traffic)
        if without_communication:
            work = step.run_without_communication
            found["without_communication_s"] = _together(work, timer, paged["without_communication"])
        if number >= warmup:
            for name, value in found.items():
                samples.setdefault(name, []).append(value)
    counted |= calls.scalars()
    if (peak_bytes := memory.peak_bytes(setting.device)["peak_memory_bytes"]) is not None:
        counted["peak_memory_bytes"] = peak_bytes
    if (ratio := getattr(replica.module, "sharded_ratio", None)) is not None:
        counted["sharded_ratio"] = ratio
    for name, region in paged.items():
        samples |= region.samples(name)
    lanes = rank_timeline.watch(step.phases, device=setting.device, before=distributed.barrier)
    samples["loss_nats"] = step.loss_values()
    joules = rank_energy.of_step(step, replica, setting, step_s=statistics.median(samples["step_s"]))
    return {"samples": samples, "scalars": counted, "lanes": lanes, "energy": joules}


def _time_in_turn(specs: dict[str, StepSpec], setting: Setting) -> dict[str, list[float]]:
    """Return the samples of whole steps, the n-th of each measured next to the n-th of the others."""
    warmup = setting.protocol["warmup_steps"]
    rounds = warmup + BESIDE_ROUNDS * setting.protocol["measured_steps"]
    steps = {name: rank_step.build(spec, setting, steps=rounds)[0] for name, spec in specs.items()}
    timer = clock.for_device(setting.device)
    samples: dict[str, list[float]] = {name: [] for name in steps}
    paged = {name: Paging() for name in steps}
    for number in range(rounds):
        if number == warmup:
            paged = {name: Paging() for name in steps}
        # Who runs second finds warm caches: they take turns at that.
        for name in list(steps) if number % 2 else reversed(steps):
            seconds = _together(steps[name].run, timer, paged[name])
            if number >= warmup:
                samples[name].append(seconds)
    for name, step in steps.items():
        step.loss_values()
        samples |= paged[name].samples(name.removesuffix("_s"))
    return samples


def _watch(spec: StepSpec, setting: Setting) -> dict[str, Any]:
    """Return what the step's own code allocates on fake tensors, and what this rank did; nothing if unknown."""
    more: dict[str, int] = {}
    if setting.device == "cpu" and strategy(str(spec.strategy)).looks_at_values:
        # torch's `fully_shard` empties storages that go on to live, and the profiler loses what Gloo's threads free: of
        # two numbers that are too large neither is told.
        return {}

    def build() -> Step:
        return rank_step.build(spec, setting, steps=2)[0]

    if setting.device == "cpu":
        timeline = predicted_memory.follow(build)
    else:
        watched = allocator_memory.watch(build, device=setting.device)
        timeline, more = watched.timeline, {"allocator_peak_bytes": max(watched.allocator_peak_bytes.values())}
    return {
        **_predicted(spec, setting),
        "measured": timeline.scalars() | more,
        "timeline": timeline.details(),
    }


def _predicted(spec: StepSpec, setting: Setting) -> dict[str, Any]:
    """Return `predicted`, the bytes or None, and `unpredicted`: why code of the user's own has no prediction."""
    try:
        timeline = rank_step.predict(spec, setting)
    except UnpredictableError as error:
        return {"predicted": None, "unpredicted": str(error)}
    return {"predicted": None if timeline is None else timeline.scalars()}


def _together(work: Callable[[], object], timer: Clock, paged: Paging | None = None) -> float:
    """Time one call of `work` that all ranks begin together."""
    distributed.barrier()
    return timing.time_whole(work, clock=timer, repeats=1, paged=paged)[0]


def _waited(traffic: Iterable[Any]) -> dict[str, float]:
    """Return what counters say of the step since they were reset, in all and by operation."""
    counters = list(traffic)
    if not counters:
        return {}
    found = {"comm_wait_s": sum(each.wait_s() for each in counters)}
    for operation in dict.fromkeys(transfer.operation for each in counters for transfer in each.transfers):
        found[f"{operation}_wait_s"] = sum(each.wait_s(operation) for each in counters)
        found[f"{operation}_busy_s"] = sum(each.busy_s(operation) for each in counters)
    return found
