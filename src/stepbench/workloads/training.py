"""What experiments that train on several ranks share in the measuring process: order, and what comes back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from stepbench.measure.measurement import Measurement, Setting
from stepbench.workloads import equivalence, rank_energy, rank_step, ranks, training_on_ranks
from stepbench.workloads.spec import StepSpec


def measure(
    spec: StepSpec,
    setting: Setting,
    *,
    partner: str | None = None,
    without_communication: bool = False,
    watch: bool = False,
) -> Measurement:
    """Have the ranks train, and return what they measured: samples by rank, and of bytes the rank with the most.

    Where it is counted, `step_energy_joules` is that of a step on the devices of all ranks.

    Args:
        spec: one rank's step.
        setting: of the cell.
        partner: a strategy whose step is timed in turn with it, with its own default of prefetch.
        without_communication: whether to time steps without communication too, where the strategy has such.
        watch: whether to predict and watch the memory.

    Raises:
        UnsupportedError: this host cannot.
        PredictedOutOfMemoryError: the step is predicted not to fit on a rank's device.
    """
    if spec.runs_own_code:
        setting = dataclasses.replace(setting, may_fork=False)  # this process has run it, and autograd
    ranks.threads_per_rank(setting, spec.ranks, spec.nodes)
    rank_step.raise_unsupported(spec, setting)
    rank_step.check_fit(spec, setting)
    beside = None if partner is None else dataclasses.replace(spec, strategy=partner, prefetch=None)
    found = ranks.call(
        training_on_ranks.run,
        setting,
        ranks=spec.ranks,
        nodes=spec.nodes,
        spec=spec.plain(),
        beside=None if beside is None else beside.plain(),
        without_communication=without_communication,
        watch=watch,
    )
    joules, counter = rank_energy.together([rank["energy"] for rank in found])
    scalars: dict[str, Any] = {**spec.work(), **_largest([rank["scalars"] for rank in found]), **joules}
    details: dict[str, Any] = {"lanes": [rank["lanes"] for rank in found], **ranks.named(found)}
    protocol: dict[str, Any] = {}
    if reasons := [rank["beside_reason"] for rank in found if "beside_reason" in rank]:
        details["beside_reason"] = reasons[0]
    if watch and all("measured" in rank for rank in found):
        # Of one and the same rank, so that categories add up: the one whose peak decides whether the step fits.
        fullest = max(found, key=lambda rank: rank["measured"]["peak_memory_bytes"])
        scalars |= fullest["measured"] | _predicted(fullest["predicted"] or {})
        details["timeline"] = fullest["timeline"]
        details["measured_by_rank"] = [rank["measured"] for rank in found]
        if "unpredicted" in fullest:
            scalars["predicted_peak_memory_bytes"] = None
            protocol["unpredicted"] = fullest["unpredicted"]
    return Measurement(
        samples=ranks.by_rank(found),
        scalars=scalars,
        details=details,
        protocol={
            "optimizer": spec.optimizer,
            "attention": spec.attention,
            **spec.unknown(),
            "backend": ranks.backend(setting),
            "threads_per_rank": ranks.threads_per_rank(setting, spec.ranks, spec.nodes),
            **equivalence.stated(),
            **counter,
            **protocol,
        },
    )


def predicted(spec: StepSpec, setting: Setting) -> Measurement:
    """Return what rank 0 of such a step would allocate, without any other rank.

    Raises:
        UnsupportedError: this device cannot, or the strategy cannot be predicted.
    """
    timeline = rank_step.must_predict(spec, setting)
    return Measurement(
        scalars={**spec.work(), **_predicted(timeline.scalars())},
        details={"timeline": timeline.details()},
        protocol={
            "optimizer": spec.optimizer,
            "attention": spec.attention,
            "watched_by": "fake tensors, rank 0 of a group",
        },
    )


def _predicted(scalars: Mapping[str, Any]) -> dict[str, Any]:
    return {f"predicted_{key}": value for key, value in scalars.items()}


def _largest(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return for each key the largest value of any rank: the equivalence check must hold for the worst."""
    return {key: max(each[key] for each in found) for key in found[0]}
