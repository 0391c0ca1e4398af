"""The numbers that machines are compared by: work done per second at one cell.

Two headlines are of the same thing if they have the same metric and the same cell, apart from the replicate.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stepbench.pipeline.records import Record
from stepbench.reporting import points, units
from stepbench.reporting.conditions import runs_on_gpu
from stepbench.reporting.message_fits import bus_factor
from stepbench.reporting.points import REPLICATE


@dataclass(frozen=True)
class Metric:
    """One kind of headline.

    Attributes:
        name: what people call it.
        experiment: whose records have it.
        keys: samples whose sum is the time, such as `("forward_s", "backward_s")`.
        work: from a record to what is done in that time, or None where the record does not have it.
        text: how a rate is written.
        paid: the unit of work that people pay for (`tokens`, `samples`), or None.
        counts: whether a record of these axes counts.
        is_epoch: whether the time is that of an epoch, which has a cost of its own.
    """

    name: str
    experiment: str
    keys: tuple[str, ...]
    work: Callable[[Record], float | None]
    text: Callable[[float | None], str]
    paid: str | None = None
    counts: Callable[[Mapping[str, Any]], bool] = lambda _: True
    is_epoch: bool = False


@dataclass(frozen=True)
class Headline:
    """One number of one machine.

    Attributes:
        metric: its kind.
        cell: axis -> value, without the replicate.
        medians_s: of each process; of published numbers the mean.
        work: done in that time.
        records: where it is from, replicates together.
    """

    metric: Metric
    cell: Mapping[str, Any]
    medians_s: tuple[float, ...]
    work: float
    records: tuple[Record, ...]

    @property
    def rate(self) -> float:
        """Work per second."""
        return self.work / statistics.geometric_mean(self.medians_s)

    @property
    def devices(self) -> int:
        """How many devices did it: the ranks on GPUs; a CPU is one."""
        return int(self.cell.get("ranks", 1)) if runs_on_gpu(self.records[0].environment) else 1

    @property
    def key(self) -> tuple[Any, ...]:
        """What two headlines of the same thing share."""
        return (self.metric.name, *sorted((axis, str(value)) for axis, value in self.cell.items()))


def _tokens(record: Record) -> float | None:
    return record.scalars.get("tokens_per_step")


def _message(record: Record) -> float | None:
    if record.cell["ranks"] < 2:
        return None
    sent = record.scalars.get("message_bytes") or record.cell["payload_bytes"]
    return sent * bus_factor(record.cell["operation"], record.cell["ranks"])


def _flops(record: Record) -> float | None:
    forward, backward = (record.scalars.get(f"{each}_flops") for each in ("forward", "backward"))
    return None if forward is None or backward is None else forward + backward


def _per_s(unit: str) -> Callable[[float | None], str]:
    return lambda rate: f"{units.number(rate)} {unit}"


METRICS = (
    Metric("forward and backward", "end_to_end", ("forward_s", "backward_s"), _tokens, _per_s("tokens/s"), "tokens"),
    Metric(
        "whole training step", "end_to_end", ("step_s",), _tokens, _per_s("tokens/s"), "tokens",
        lambda cell: cell["passes"] == "train_step",
    ),
    Metric("attention, forward and backward", "attention", ("forward_s", "backward_s"), _flops, units.flop_rate),
    Metric(
        "all-reduce, bus bandwidth", "collectives", ("call_s",), _message, units.byte_rate,
        counts=lambda cell: cell["operation"] == "all_reduce",
    ),
    Metric(
        "training epoch", "encoder_decoder", ("epoch_s",), lambda record: record.scalars.get("samples_per_epoch"),
        _per_s("samples/s"), "samples", is_epoch=True,
    ),
)  # fmt: skip


def headlines(records: Iterable[Record]) -> list[Headline]:
    """Return the headlines of records, the replicates of a cell together, in the order of `METRICS`."""
    everything = list(records)
    return [each for metric in METRICS for each in _of_metric(metric, everything)]


def _of_metric(metric: Metric, records: list[Record]) -> list[Headline]:
    by_cell: dict[tuple[Any, ...], list[tuple[Record, float]]] = {}
    for record in records:
        if record.experiment != metric.experiment or not metric.counts(record.cell):
            continue
        seconds = _seconds(record, metric.keys)
        # Phases are the same in a whole step and in less of one, as some published numbers are.
        cell = {axis: value for axis, value in record.cell.items() if axis not in _left_out(metric)}
        if seconds is not None and _work(metric, record):
            by_cell.setdefault(tuple(cell.items()), []).append((record, seconds))
    return [
        Headline(
            metric,
            dict(cell),
            tuple(seconds for _, seconds in found),
            _work(metric, found[0][0]) or 0.0,
            tuple(record for record, _ in found),
        )
        for cell, found in by_cell.items()
    ]


def _work(metric: Metric, record: Record) -> float | None:
    """Return the work of a record, or None where a record from elsewhere has no number for it."""
    try:
        work = metric.work(record)
    except TypeError:  # of what is no number
        return None
    return float(work) if work is not None and _is_positive(work) else None


def _is_positive(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and 0 < found < math.inf


def _left_out(metric: Metric) -> tuple[str, ...]:
    """Return the axes that do not matter: phases are the same in a step with an optimizer and in one without."""
    return (REPLICATE, "passes") if metric.experiment == "end_to_end" else (REPLICATE,)


def _seconds(record: Record, keys: tuple[str, ...]) -> float | None:
    """Return the median of the keys' sum, or the sum of published means."""
    sides = [points.processes([record], key) for key in keys]
    if all(sides) and len({len(side[0]) for side in sides}) == 1:
        sums = [sum(values) for values in zip(*(side[0] for side in sides), strict=True)]
        median = statistics.median(sums)
        return median if median > 0 else None
    means = [record.scalars.get(f"{key.removesuffix('_s')}_mean_s") for key in keys]
    return sum(mean or 0.0 for mean in means) if all(map(_is_positive, means)) else None
