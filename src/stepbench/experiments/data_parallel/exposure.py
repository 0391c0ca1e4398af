"""Exposed communication: as measured, and as latency and bandwidth of all-reduce predict it.

The prediction is that of a pipeline: the backward pass of T seconds makes S bytes of gradients at an even pace, and a
bucket of b bytes is sent when it is full, one after the other, each in α + b/β. If the network is faster, the last
bucket alone is exposed; if it is slower, it sends everything after the first bucket is full.

    exposed(b) = max(α + b/β, b/S·T + S/b·α + S/β − T)
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from stepbench.reporting import points
from stepbench.reporting.message_fits import Fit
from stepbench.reporting.points import Group
from stepbench.reporting.statistics import Summary

STEPS_PER_DOUBLING = 8
DEFAULT_BUCKET_MIB = 25
SMALLEST_BYTES = 2**14


def exposed(group: Group) -> Summary | None:
    """Return the whole step less the step without communication that was measured next to it."""
    return group.stepwise(operator.sub, "step_s", "without_communication_s")


def exposed_shares(group: Group) -> list[float]:
    """Return the exposed share of the step in each process that was timed without communication too."""
    found = []
    for record in group.records:
        bare, whole = (points.processes([record], key) for key in ("without_communication_s", "step_s"))
        if bare and whole:
            apart = [step - alone for step, alone in zip(whole[0], bare[0], strict=True)]
            found.append(float(np.median(apart) / np.median(whole[0])))
    return found


def exposed_by_fit(fit: Fit, backward_s: float, payload_bytes: float, bucket_bytes: float) -> float:
    """Return what would be exposed if communication ran beside computation."""
    last = fit.seconds(bucket_bytes)
    buckets = payload_bytes / bucket_bytes
    behind = backward_s / buckets + buckets * fit.latency_s + payload_bytes / fit.bytes_per_s - backward_s
    return max(last, behind)


def best_bucket(fit: Fit, backward_s: float, payload_bytes: float) -> tuple[float, float]:
    """Return the size of buckets that leaves the least exposed, and how much that is."""
    sizes = [float(payload_bytes)]
    while sizes[-1] > SMALLEST_BYTES:
        sizes.append(sizes[-1] / 2 ** (1 / STEPS_PER_DOUBLING))
    found = [(exposed_by_fit(fit, backward_s, payload_bytes, size), size) for size in sizes]
    seconds, size = min(found)
    return size, seconds


def bucket_mib(point: Mapping[str, Any]) -> int:
    """Return the size of a point's buckets in MiB, torch's own default where the point names none."""
    return point["bucket_mib"] or DEFAULT_BUCKET_MIB
