"""The time by which a cell is compared with itself: that of a step, call or epoch, or the sum of what was timed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from stepbench.pipeline.records import Record
from stepbench.reporting import points, sense

WHOLE = ("step_s", "call_s", "epoch_s")


def keys(record: Record) -> tuple[str, ...]:
    """Return the samples whose sum is the time; none where nothing was timed."""
    if whole := [key for key in WHOLE if record.samples.get(key)]:
        return (whole[0],)
    return tuple(key for key, found in record.samples.items() if found and sense.TIMED.fullmatch(key))


def label(record: Record) -> str:
    """Return the time in words, such as `step` or `forward + backward`."""
    return " + ".join(key.removesuffix("_s").replace("_", " ") for key in keys(record))


def samples(record: Record) -> list[float]:
    """Return the time of each repetition in seconds; empty where nothing was timed.

    Where the parts of a sum were not repeated equally often there is one number, the sum of their medians.
    """
    parts = [points.processes([record], key)[0] for key in keys(record)]
    if len({len(part) for part in parts}) > 1:
        return [float(sum(np.median(part) for part in parts))]
    return [float(sum(values)) for values in zip(*parts, strict=True)]


def median(record: Record) -> float | None:
    """Return the median time in seconds, or None where nothing was timed."""
    found = samples(record)
    return float(np.median(found)) if found else None


def processes(records: Iterable[Record]) -> list[Sequence[float]]:
    """Return the samples of each record that has some."""
    return [found for record in records if (found := samples(record))]
