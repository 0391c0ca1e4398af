"""The tables of the collectives experiment."""

from __future__ import annotations

import dataclasses
from typing import Any

from stepbench.reporting import message_fits, units
from stepbench.reporting.frames import Group, Results
from stepbench.reporting.message_fits import bus_bytes_per_s, bus_factor, groups_of, message_bytes
from stepbench.reporting.steps import one_line, statistics_of, time_unit
from stepbench.reporting.tables import (
    MARKS,
    RECORDS,
    STATUS,
    Column,
    Table,
    axis_columns,
    axis_text,
    facts,
    frame,
    held_constant,
    value,
)


def messages(results: Results) -> Table:
    """Return one row for each operation and message: time of the slowest rank, bandwidths, skew."""
    groups = results.groups()
    rows = [_row(group) for group in groups]
    axes = ["backend", "ranks"]
    unit = time_unit(rows, ("call",))
    columns = [
        value("operation", text=axis_text, numeric=False),
        *axis_columns(rows, axes),
        Column("message", lambda row: units.byte_count(row["message_bytes"])),
        one_line("call", unit, "one call"),
        Column("algorithm bandwidth", lambda row: units.byte_rate(row["algorithm_bytes_per_s"])),
        Column("bus bandwidth", lambda row: units.byte_rate(row["bus_bytes_per_s"])),
        Column("skew", lambda row: units.percent(row["skew_ratio"])),
        MARKS,
        STATUS,
    ]
    told = (
        "One call, begun by all ranks together, until the slowest rank has its result; the message is the whole of "
        "what is reduced, or of what every rank has in the end. Algorithm bandwidth is the message over the time; bus "
        "bandwidth is that times 2(n−1)/n for all-reduce, (n−1)/n for all-gather and reduce-scatter and 1 for "
        "broadcast, as nccl-tests define it. Skew is the median difference between the slowest and the fastest rank, "
        f"over the time. {held_constant(rows, axes)}"
    ).strip()
    return Table("messages", "Time and bandwidth of collectives", told, frame(rows), columns, "The grid has no cell.")


def fits(results: Results) -> Table:
    """Return one row for each operation, backend and number of ranks: the two numbers that describe it."""
    rows = [
        {
            **dataclasses.asdict(each),
            "bus_bytes_per_s": each.bytes_per_s * bus_factor(each.operation, each.ranks),
            RECORDS: {"": [path for group in groups_of(results, each) for path in group.paths]},
        }
        for each in message_fits.fits(results)
    ]
    columns = [
        value("operation", text=axis_text, numeric=False),
        value("backend", text=axis_text, numeric=False),
        value("ranks"),
        Column("latency α", lambda row: units.seconds(row["latency_s"])),
        Column("bandwidth β", lambda row: units.byte_rate(row["bytes_per_s"])),
        Column("bus bandwidth of β", lambda row: units.byte_rate(row["bus_bytes_per_s"])),
        Column("worst residual", lambda row: units.percent(row["residual_ratio"])),
        value("messages", "sizes"),
    ]
    told = (
        "Time = α + bytes / β, fitted to the medians by least squares of relative errors. The worst residual is how "
        "far the fit is off at one of the messages; two sizes leave none."
    )
    return Table("fits", "Latency and bandwidth", told, frame(rows), columns, "No operation has two sizes of messages.")


def _row(group: Group) -> dict[str, Any]:
    summary = group.summary("call_s")
    sent = message_bytes(group)
    rate = sent / summary.median if summary and summary.median else None
    return {
        **facts(group, summary.marks if summary else ()),
        "message_bytes": sent,
        **statistics_of("call", summary),
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
