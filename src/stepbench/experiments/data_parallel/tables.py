"""The tables of the data-parallel experiment: the strategies, and the size of buckets."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.data_parallel import projection as projected
from stepbench.experiments.data_parallel.bars import BARS
from stepbench.experiments.data_parallel.exposure import best_bucket, bucket_mib, exposed, exposed_by_fit
from stepbench.reporting import paired_tables, units
from stepbench.reporting.frames import Group, Results
from stepbench.reporting.message_fits import chosen
from stepbench.reporting.statistics import Summary
from stepbench.reporting.steps import WHOLE, median_alone, middle, one_line, statistics_of, time_unit
from stepbench.reporting.tables import (
    MARKS,
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

MIB = 2**20
PHASES = ("forward", "backward", "synchronization", "optimizer")
READING = "The slowest rank counts at each step."


def strategies(results: Results) -> Table:
    """Return one row for each point: phases, step, what is exposed in two ways, what is sent, the equivalence check."""
    rows = [_row(group) for group in results.groups()]
    axes = [axis for axis in results.axes if axis not in ("strategy", "replicate")]
    unit = time_unit(rows, (WHOLE,))
    columns = [
        value("strategy", text=axis_text, numeric=False),
        *axis_columns(rows, axes),
        *(median_alone(name, unit) for name in PHASES),
        one_line(WHOLE, unit, "whole step"),
        Column(f"waited ({unit.name})", lambda row: middle("comm_wait", unit, row)),
        Column(f"step less the step without communication ({unit.name})", lambda row: middle("exposed", unit, row)),
        Column("exposed share of the step", lambda row: units.percent(row["exposed_ratio"])),
        value("collectives_per_step", "collectives", _count),
        Column("sent per step", lambda row: units.byte_count(row["payload_bytes"])),
        Column("error of the equivalence check", lambda row: units.scientific(row["equivalence_difference_ratio"])),
        Column("allowed", lambda row: units.scientific(row["equivalence_tolerance_ratio"])),
        MARKS,
        STATUS,
    ]
    told = (
        f"Medians. {READING} Exposed communication is measured in two ways: how long a rank stood still for it in a "
        "whole step (torch's own DDP does not tell), and the whole step less one next to it whose gradients stayed "
        "where they were, with their 95 % intervals. The equivalence check compares parameters after a few steps with "
        f"those of one process on the joined batch, over the way they went. {held_constant(rows, axes)}"
    ).strip()
    return Table("strategies", "Strategies", told, frame(rows), columns, "The grid has no cell.")


def buckets(results: Results) -> Table:
    """Return one row for each size of buckets: the step, what is exposed, and what the fit of all-reduce predicts."""
    groups = [group for group in results.groups() if group.point["strategy"] in ("bucketed", "torch_ddp")]
    rows = [_bucket_row(group, results) for group in groups]
    axes = [axis for axis in results.axes if axis not in ("strategy", "bucket_mib", "replicate")]
    unit = time_unit(rows, (WHOLE,))
    columns = [
        *axis_columns(rows, axes),
        value("strategy", text=axis_text, numeric=False),
        Column("buckets of", lambda row: f"{bucket_mib(row)} MiB"),
        value("collectives_per_step", "collectives", _count),
        one_line(WHOLE, unit, "whole step"),
        Column("exposed", lambda row: units.seconds(row["exposed_median_s"])),
        Column("exposed by the fit", lambda row: units.seconds(row["predicted_exposed_s"])),
        Column("best bucket by the fit", lambda row: _mib(row["best_bucket_bytes"])),
        MARKS,
        STATUS,
    ]
    told = (
        "The fit of all-reduce (latency and bandwidth, see the collectives) and the backward time that was measured "
        "without communication say what would be exposed if both ran side by side, and which size of buckets would "
        f"leave the least. {held_constant(rows, axes)}"
    ).strip()
    empty = "The grid has no strategy with buckets."
    return Table("buckets", "The size of buckets", told, frame(rows), columns, empty)


def beside(results: Results) -> Table:
    """Return what stands beside torch's own."""
    return paired_tables.beside(results, BARS)


def projection(results: Results) -> Table:
    """Return the projection to more ranks."""
    return projected.table(results)


def _row(group: Group) -> dict[str, Any]:
    summaries = {name: group.summary(f"{name}_s") for name in (*PHASES, WHOLE, "comm_wait")}
    summaries["exposed"] = exposed(group)
    whole, bare = summaries[WHOLE], summaries["exposed"]
    row: dict[str, Any] = facts(group, whole.marks if whole else ())
    for name, summary in summaries.items():
        row |= statistics_of(name, summary)
    keys = ("collectives_per_step", "payload_bytes", "equivalence_difference_ratio", "equivalence_tolerance_ratio")
    return {
        **row,
        **{key: group.scalar(key) for key in keys},
        "exposed_ratio": bare.median / whole.median if bare and whole and whole.median else None,
    }


def _bucket_row(group: Group, results: Results) -> dict[str, Any]:
    fit = chosen(results.others.get("collectives"), "all_reduce", group.point["ranks"])
    backward: Summary | None = group.summary("backward_s")
    payload = group.scalar("payload_bytes") or (group.scalar("parameters") or 0) * 4
    row = _row(group) | {"predicted_exposed_s": None, "best_bucket_bytes": None}
    if fit is None or backward is None or not payload:
        return row
    size = bucket_mib(group.point) * MIB
    best, _ = best_bucket(fit, backward.median, payload)
    return row | {
        "predicted_exposed_s": exposed_by_fit(fit, backward.median, payload, min(size, payload)),
        "best_bucket_bytes": best,
    }


def _mib(found: float | None) -> str:
    return units.NOTHING if found is None else f"{units.number(found / MIB)} MiB"


def _count(found: Any) -> str:
    return units.NOTHING if found is None else str(found)
