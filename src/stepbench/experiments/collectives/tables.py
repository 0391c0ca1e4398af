"""The tables of collectives."""

from __future__ import annotations

import dataclasses
from typing import Any

from stepbench.reporting import columns as col
from stepbench.reporting import message_fits, units
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import bus_bytes_per_s, bus_factor, groups_of, message_bytes
from stepbench.reporting.points import Group
from stepbench.reporting.tables import Table


def messages(results: Results) -> Table:
    """Return one row for each operation and message: time of the slowest rank, bandwidths, skew."""
    rows = [_row(group) for group in results.groups()]
    axes = ["backend", "ranks", "nodes"]
    columns = [
        col.value("operation", text=col.axis_text, numeric=False),
        *col.axis_columns(rows, axes),
        col.value("message_bytes", "message", units.byte_count),
        col.interval("call", col.time_unit(rows, ("call",)), "one call"),
        col.value("algorithm_bytes_per_s", "algorithm bandwidth", units.byte_rate),
        col.value("bus_bytes_per_s", "bus bandwidth", units.byte_rate),
        col.value("skew_ratio", "skew", units.percent),
        col.WARNINGS,
        col.STATUS,
    ]
    caption = (
        "All ranks start one call together; it ends when the slowest rank has its result. The message is all that is "
        "reduced, or all that every rank has in the end. Algorithm bandwidth is the message over the time; bus "
        "bandwidth is that times 2(n−1)/n for all-reduce, (n−1)/n for all-gather and reduce-scatter and 1 for "
        "broadcast, as nccl-tests define it. Skew is the median difference between the slowest and the fastest rank, "
        "over the time."
    )
    return Table("Time and bandwidth of collectives", caption, rows, columns, held=axes)


def fits(results: Results) -> Table:
    """Return one row for each operation, backend and number of ranks: latency and bandwidth."""
    rows = [
        {
            **dataclasses.asdict(each),
            "bus_bytes_per_s": each.bytes_per_s * bus_factor(each.operation, each.ranks),
            col.RECORDS: {"": [path for group in groups_of(results, each) for path in group.paths]},
        }
        for each in message_fits.fits(results)
    ]
    columns = [
        col.value("operation", text=col.axis_text, numeric=False),
        col.word("backend"),
        col.value("ranks"),
        col.value("nodes"),
        col.value("latency_s", "latency α", units.seconds),
        col.value("bytes_per_s", "bandwidth β", units.byte_rate),
        col.value("bus_bytes_per_s", "bus bandwidth of β", units.byte_rate),
        col.value("residual_ratio", "worst residual", units.percent),
        col.value("messages", "message sizes"),
    ]
    caption = (
        "Time = α + bytes / β, fitted to the medians by least squares of relative errors. The worst residual is the "
        "largest error of the fit at a message size; a fit through two sizes has none."
    )
    return Table("Latency and bandwidth", caption, rows, columns, "No operation has two message sizes.")


def _row(group: Group) -> dict[str, Any]:
    summary = group.summary("call_s")
    sent = message_bytes(group)
    rate = sent / summary.median if summary and summary.median else None
    return {
        **col.measured(group, {"call": summary}, "call"),
        "message_bytes": sent,
        "algorithm_bytes_per_s": rate,
        "bus_bytes_per_s": bus_bytes_per_s(group, summary.median) if summary and rate else None,
        "skew_ratio": _skew(group),
    }


def _skew(group: Group) -> float | None:
    """Return the median over all calls of slowest less fastest rank, over slowest."""
    found = [
        (max(call) - min(call)) / max(call)
        for record in group.records
        for call in zip(*record.samples["call_s"], strict=True)
        if max(call) > 0
    ]
    return sorted(found)[len(found) // 2] if found else None
