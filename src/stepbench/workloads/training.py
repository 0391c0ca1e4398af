"""What experiments that train on several ranks share in the measuring process: order, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stepbench.measure.measurement import Measurement, Setting, UnsupportedError
from stepbench.models import costs
from stepbench.models.sizes import ModelSize
from stepbench.workloads import decoder_step, ranks, replica_step, training_on_ranks
from stepbench.workloads.replica_step import What

PROVED_BY = (
    "parameters after a few steps on other data per rank, against one process on the joined batch and in float64"
)


def measure(
    setting: Setting,
    what: What,
    *,
    beside: What | None = None,
    without_communication: bool = False,
    watch: bool = False,
) -> Measurement:
    """Have the ranks train, and return what they measured: samples by rank, and of bytes the rank with the most.

    Args:
        setting: of the cell.
        what: the strategy and the shape of one rank's step.
        beside: another strategy to time in turn with the first.
        without_communication: whether to time steps without communication too.
        watch: whether to predict and watch the memory.

    Raises:
        UnsupportedError: this host cannot.
    """
    ranks.threads_per_rank(setting, what.ranks)
    if (reason := decoder_step.unsupported_reason(setting, what.step)) is not None:
        raise UnsupportedError(reason)
    found = ranks.call(
        training_on_ranks.run,
        setting,
        ranks=what.ranks,
        what=asdict(what),
        beside=None if beside is None else asdict(beside),
        without_communication=without_communication,
        watch=watch,
    )
    size, vocabulary = ModelSize(**setting.definition["size"]), setting.definition["vocabulary"]
    shape = {"vocabulary": vocabulary, "batch": what.step.batch, "context": what.step.context}
    scalars: dict[str, Any] = {
        "parameters": costs.parameters(size, vocabulary),
        "tokens_per_step": what.ranks * what.step.batch * what.step.context,
        "forward_flops": costs.forward_flops(size, **shape),
        "backward_flops": costs.backward_flops(size, **shape),
        **_largest([rank["scalars"] for rank in found]),
    }
    details: dict[str, Any] = {"lanes": [rank["lanes"] for rank in found]}
    if watch and all("measured" in rank for rank in found):
        # Of one and the same rank, so that categories add up: the one whose peak decides whether the step fits.
        fullest = max(found, key=lambda rank: rank["measured"]["peak_memory_bytes"])
        scalars |= fullest["measured"] | _predicted(fullest["predicted"] or {})
        details["timeline"] = fullest["timeline"]
        details["measured_by_rank"] = [rank["measured"] for rank in found]
    return Measurement(
        samples=ranks.by_rank(found),
        scalars=scalars,
        details=details,
        protocol={
            "optimizer": what.step.optimizer,
            "attention": "naive",
            "backend": ranks.backend(setting),
            "threads_per_rank": ranks.threads_per_rank(setting, what.ranks),
            "proved_by": PROVED_BY,
            "proof": {
                "steps": replica_step.PROOF_STEPS,
                "blocks": replica_step.PROOF_BLOCKS,
                "vocabulary": replica_step.PROOF_VOCABULARY,
                "batch": replica_step.PROOF_BATCH,
                "context": replica_step.PROOF_CONTEXT,
            },
        },
    )


def predicted(setting: Setting, what: What) -> Measurement:
    """Return what rank 0 of such a step would allocate, without any other rank.

    Raises:
        UnsupportedError: this strategy cannot be predicted.
    """
    if what.ranks < 1:
        raise UnsupportedError(f"there must be at least one rank, got {what.ranks}")
    timeline = replica_step.predict(setting, what)
    if timeline is None:
        known = ", ".join(replica_step.PREDICTABLE)
        raise UnsupportedError(f"a strategy must not look at values to be predicted, as {known}; got {what.strategy}")
    parameters = costs.parameters(ModelSize(**setting.definition["size"]), setting.definition["vocabulary"])
    return Measurement(
        scalars={"parameters": parameters, **_predicted(timeline.scalars())},
        details={"timeline": timeline.details()},
        protocol={
            "optimizer": what.step.optimizer,
            "attention": "naive",
            "watched_by": "fake tensors, rank 0 of a group",
        },
    )


def _predicted(scalars: Mapping[str, Any]) -> dict[str, Any]:
    return {f"predicted_{key}": value for key, value in scalars.items()}


def _largest(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return for each key the largest value of any rank: the proof must hold for the worst."""
    return {key: max(each[key] for each in found) for key in found[0]}
