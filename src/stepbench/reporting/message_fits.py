"""A collective's time as latency and bandwidth: t = α + bytes / β, fitted to the messages that were measured.

The fit is least squares of relative errors: a message of a few KiB counts as much as one of a GiB. Bus bandwidth is
defined as in nccl-tests, and can be compared over operations and numbers of ranks.

Source: NVIDIA, nccl-tests, doc/PERFORMANCE.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group

RATE_AXES = ("operation", "backend", "ranks", "nodes")


@dataclass(frozen=True)
class Fit:
    """The fit of an operation on some ranks.

    Attributes:
        operation: `all_reduce`, `all_gather`, `reduce_scatter` or `broadcast`.
        backend: `gloo` or `nccl`.
        ranks: how many.
        latency_s: α, not below 0.
        bytes_per_s: β, of the payload.
        residual_ratio: how far the fit is off at the worst message, over the measured time; None with two messages,
            through which any two numbers go.
        messages: how many sizes it rests on.
        nodes: over how many machines the ranks are divided.
    """

    operation: str
    backend: str
    ranks: int
    latency_s: float
    bytes_per_s: float
    residual_ratio: float | None
    messages: int
    nodes: int = 1

    def seconds(self, payload_bytes: float) -> float:
        """Return the fitted time of a message."""
        return self.latency_s + payload_bytes / self.bytes_per_s


def bus_factor(operation: str, ranks: int) -> float:
    """Return bus bandwidth over algorithm bandwidth; both count the bytes of the whole message."""
    if operation == "broadcast":
        return 1.0
    return (2 if operation == "all_reduce" else 1) * (ranks - 1) / ranks


def bus_bytes_per_s(group: Group, seconds: float) -> float:
    """Return the bus bandwidth of a point's message that took so long."""
    return message_bytes(group) / seconds * bus_factor(group.point["operation"], group.point["ranks"])


def fits(results: Results) -> list[Fit]:
    """Return a fit for each operation, backend and number of ranks that has at least two sizes of messages."""
    points: dict[tuple[str, str, int, int], list[tuple[int, float]]] = {}
    for group in results.groups():
        summary = group.summary("call_s")
        if summary is not None and summary.median > 0:
            operation, backend, ranks, nodes = (group.point[axis] for axis in RATE_AXES)
            points.setdefault((operation, backend, ranks, nodes), []).append((message_bytes(group), summary.median))
    return [
        Fit(operation, backend, ranks, *fit(known), messages=len(known), nodes=nodes)
        for (operation, backend, ranks, nodes), known in points.items()
        if len({size for size, _ in known}) > 1
    ]


def groups_of(results: Results, fitted: Fit) -> list[Group]:
    """Return the points that a fit rests on."""
    key = (fitted.operation, fitted.backend, fitted.ranks, fitted.nodes)
    return [group for group in results.groups() if tuple(group.point[axis] for axis in RATE_AXES) == key]


def fit(points: Sequence[tuple[int, float]]) -> tuple[float, float, float | None]:
    """Return latency, bytes per second and the worst relative residual of (bytes, seconds)."""
    sizes, seconds = (np.array(side, dtype=np.float64) for side in zip(*points, strict=True))
    rows = np.stack([1 / seconds, sizes / seconds], axis=1)
    (latency, per_byte), *_ = np.linalg.lstsq(rows, np.ones(len(points)), rcond=None)
    if latency < 0 or per_byte <= 0:
        # The latency is lost in noise: bandwidth alone is fitted.
        latency, per_byte = 0.0, float((sizes / seconds).sum() / ((sizes / seconds) ** 2).sum())
    residuals = np.abs((latency + sizes * per_byte) / seconds - 1)
    return float(latency), float(1 / per_byte), float(residuals.max()) if len(points) > 2 else None


def chosen(results: Results | None, operation: str, ranks: int, nodes: int = 1) -> Fit | None:
    """Return the fit of an operation on a number of ranks and nodes, NCCL's before Gloo's."""
    wanted = (operation, ranks, nodes)
    found = [each for each in fits(results) if (each.operation, each.ranks, each.nodes) == wanted] if results else []
    return next(iter(sorted(found, key=lambda each: each.backend != "nccl")), None)


def message_bytes(group: Group) -> int:
    """Return the bytes that were sent: the payload, cut to a whole number of elements for each rank."""
    return int(group.scalar("message_bytes") or group.point["payload_bytes"])
