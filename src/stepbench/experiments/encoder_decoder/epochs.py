"""The raw values of a point's epochs."""

from __future__ import annotations

from typing import Any

from stepbench.reporting.columns import measured
from stepbench.reporting.points import Group

KEY = "epoch_s"
AXES = ("preset", "data", "ranks")
COUNTED = (
    "parameters",
    "effective_batch",
    "steps_per_epoch",
    "samples_per_epoch",
    "tokens_per_epoch",
    "data_samples",
    "sample_bytes",
    "loader_bytes_per_s",
    "peak_memory_bytes",
    "peak_host_bytes",
    "utilisation_ratio",
    "power_watts",
    "sm_clock_hz",
)


def row(group: Group) -> dict[str, Any]:
    """Return a point's raw values."""
    whole, waited = group.summary(KEY), group.summary("data_wait_s")
    counted = {key: group.scalar(key) for key in COUNTED}
    losses = [mean(values) for record in group.records for values in by_epoch(record.samples["loss_nats"])]
    return {
        **measured(group, {"epoch": whole}, "epoch"),
        **counted,
        "samples_per_s": _rate(counted["samples_per_epoch"], whole),
        "tokens_per_s": _rate(counted["tokens_per_epoch"], whole),
        "data_wait_ratio": waited.median / whole.median if waited and whole and whole.median else None,
        "first_loss_nats": losses[0] if losses else None,
        "last_loss_nats": losses[-1] if losses else None,
    }


def by_epoch(by_rank: list[list[float]]) -> list[tuple[float, ...]]:
    """Return the values of each epoch, one for each rank."""
    return list(zip(*by_rank, strict=True))


def mean(values: tuple[float, ...]) -> float:
    """Return the mean of the ranks' values."""
    return sum(values) / len(values)


def _rate(count: float | None, whole: Any) -> float | None:
    return count / whole.median if count and whole and whole.median else None
