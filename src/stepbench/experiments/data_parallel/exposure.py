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

from stepbench.reporting import points, units
from stepbench.reporting.agreement import Agreement, Reading
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import Fit, chosen, groups_of
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


def all_reduces(results: Results) -> list[Agreement]:
    """Return how long the one all-reduce of the strategy `flat` takes, beside what the fit of all-reduce gives."""
    found = []
    for group in results.groups():
        first = Reading.of("data parallelism, flat", group, "all_reduce_busy_s")
        payload, ranks = group.scalar("payload_bytes"), group.point["ranks"]
        collectives = results.others.get("collectives")
        fit = chosen(collectives, "all_reduce", ranks)
        if group.point["strategy"] != "flat" or first is None or not payload or fit is None or collectives is None:
            continue
        seconds, off = fit.seconds(payload), fit.residual_ratio
        low, high = (None, None) if off is None else (seconds * (1 - off), seconds * (1 + off))
        known = tuple(each for each in groups_of(collectives, fit) if each.records)
        second = Reading("collectives, by the fit", known, "call_s", seconds, low, high)
        found.append(Agreement(f"an all-reduce of {units.byte_count(payload)} on {ranks} ranks", first, second))
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
