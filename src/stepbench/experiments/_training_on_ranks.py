"""What each rank does for a cell of data-parallel, sharded or FSDP training: prove, time, watch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stepbench.experiments._replica_step import ReplicaStep, What
from stepbench.measure.measurement import Setting

BESIDE_ROUNDS = 4  # times the protocol's steps: a ratio near 1 needs more of them
OWN, OTHER = "step_s", "beside_step_s"


def timed(*, setting: dict[str, Any], what: dict[str, Any], without_communication: bool) -> dict[str, Any]:
    """Prove the strategy right, then time its step by phases and as a whole, and draw one.

    Args:
        setting: a plain `Setting`.
        what: the fields of a `What`.
        without_communication: whether to time, in turn with the whole steps, steps whose gradients stay where they are.

    Returns:
        `samples` of this rank: `forward_s`, `backward_s`, `synchronization_s`, `optimizer_s`, `step_s`, perhaps
        `without_communication_s`, `loss_nats`, and for strategies that count `comm_wait_s` and for each collective
        `<operation>_wait_s` and `<operation>_busy_s` (of the whole steps); `scalars`; `lanes` of one step over time.
    """
    from torch import distributed

    from stepbench.experiments import _replica_step
    from stepbench.measure import clock, rank_timeline, timing

    given, cell = Setting(**setting), What(**what)
    proof = _replica_step.prove(given, cell)
    warmup, measured = (given.protocol[key] for key in ("warmup_steps", "measured_steps"))
    rounds = warmup + measured
    step = _step(given, cell, steps=rounds * (3 if without_communication else 2) + rank_timeline.PROFILED_STEPS)
    timer = clock.for_device(given.device)
    samples: dict[str, list[float]] = {}
    traffic = step.replica.traffic
    for number in range(rounds):
        found: dict[str, float] = {}
        distributed.barrier()
        for name, values in timing.time_phases(step.phases, clock=timer, repeats=1).items():
            found[f"{name}_s"] = values[0]
        for each in traffic:
            each.reset()
        found["step_s"] = _together(step.run, timer)
        found |= _waited(traffic)
        counted = {
            "collectives_per_step": sum(each.calls for each in traffic),
            "payload_bytes": sum(each.payload_bytes for each in traffic),
        }
        if without_communication:
            found["without_communication_s"] = _together(step.run_without_communication, timer)
        if number >= warmup:
            for name, value in found.items():
                samples.setdefault(name, []).append(value)
    lanes = rank_timeline.watch(step.phases, device=given.device, before=distributed.barrier)
    samples["loss_nats"] = step.loss_values()
    return {"samples": samples, "scalars": {**proof, **(counted if traffic else {})}, "lanes": lanes}


def beside(*, setting: dict[str, Any], what: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Time a strategy's whole step and another's in turn, in the same processes.

    Returns:
        `samples` of this rank: `step_s` and `beside_step_s`, the n-th of one measured next to the n-th of the other;
        `scalars` with the proofs of the first.
    """
    from stepbench.experiments import _replica_step
    from stepbench.measure import clock

    given, cells = Setting(**setting), {OWN: What(**what), OTHER: What(**other)}
    proof = _replica_step.prove(given, cells[OWN])
    warmup, measured = (given.protocol[key] for key in ("warmup_steps", "measured_steps"))
    rounds = warmup + BESIDE_ROUNDS * measured
    steps = {name: _step(given, cell, steps=rounds) for name, cell in cells.items()}
    timer = clock.for_device(given.device)
    samples: dict[str, list[float]] = {OWN: [], OTHER: []}
    for number in range(rounds):
        # Whoever runs second finds warm caches: they take turns.
        for name in (OWN, OTHER) if number % 2 else (OTHER, OWN):
            seconds = _together(steps[name].run, timer)
            if number >= warmup:
                samples[name].append(seconds)
    for step in steps.values():
        step.loss_values()
    return {"samples": samples, "scalars": dict(proof)}


def watched(*, setting: dict[str, Any], what: dict[str, Any]) -> dict[str, Any]:
    """Run the step twice and return what this rank's allocator did in the second: `scalars` and a `timeline`."""
    from stepbench.measure import allocator_memory

    given, cell = Setting(**setting), What(**what)
    found = allocator_memory.watch(lambda: _step(given, cell, steps=2), device=given.device)
    peak = max(found.allocator_peak_bytes.values(), default=None)
    return {
        "scalars": found.timeline.scalars() | ({} if peak is None else {"allocator_peak_bytes": peak}),
        "timeline": found.timeline.details(),
    }


def _step(setting: Setting, what: What, *, steps: int) -> ReplicaStep:
    from torch import distributed

    from stepbench.experiments import _replica_step

    own = _replica_step.batches(setting, what.step, rank=distributed.get_rank())
    return ReplicaStep(setting, what, own, steps=steps)


def _together(work: Callable[[], object], timer: Any) -> float:
    """Time one call of `work` that all ranks begin together."""
    from torch import distributed

    from stepbench.measure import timing

    distributed.barrier()
    return timing.time_whole(work, clock=timer, repeats=1)[0]


def _waited(traffic: Iterable[Any]) -> Mapping[str, float]:
    """Return what counters say of the step since they were reset, by operation and in all."""
    counters = list(traffic)
    if not counters:
        return {}
    operations = dict.fromkeys(transfer.operation for each in counters for transfer in each.transfers)
    found = {"comm_wait_s": sum(each.comm_wait_s for each in counters)}
    for operation in operations:
        found[f"{operation}_wait_s"] = sum(each.wait_s(operation) for each in counters)
        found[f"{operation}_busy_s"] = sum(each.busy_s(operation) for each in counters)
    return found
