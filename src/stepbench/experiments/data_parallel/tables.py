"""The tables of data parallelism: strategies, bucket sizes, the comparison with torch's own, the projection."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.data_parallel import projection as projected
from stepbench.experiments.data_parallel import projection_check as checked
from stepbench.experiments.data_parallel.cell import PARTNERS
from stepbench.experiments.data_parallel.exposure import all_reduces, best_bucket, bucket_mib, exposed, exposed_by_fit
from stepbench.reporting import agreement, paired, sharding_tables, units
from stepbench.reporting import columns as col
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import chosen
from stepbench.reporting.paired import Target, Targets
from stepbench.reporting.points import Group
from stepbench.reporting.steps import WHOLE
from stepbench.reporting.tables import Table

TARGETS: Targets = {"bucketed": Target(PARTNERS["bucketed"], 1.02)}
MIB = 2**20
PHASES = ("forward", "backward", "synchronization", "optimizer")


def strategies(results: Results) -> Table:
    """Return one row for each point: phases, step, exposed communication in two ways, messages, equivalence check."""
    rows = [_row(group) for group in results.groups()]
    axes = col.rest(results.axes, "strategy")
    unit = col.time_unit(rows, (WHOLE,))
    columns = [
        col.value("strategy", text=col.axis_text, numeric=False),
        *col.axis_columns(rows, axes),
        *(col.median(name, unit) for name in PHASES),
        col.interval(WHOLE, unit, "whole step"),
        col.interval("comm_wait", unit, "exposed wait"),
        col.interval("exposed", unit, "step − step without communication"),
        col.value("exposed_ratio", "exposed share of the step", units.percent),
        col.value("collectives_per_step", "collectives", col.or_dash),
        col.value("payload_bytes", "sent per step", units.byte_count),
        col.value("equivalence_difference_ratio", "equivalence error", units.scientific),
        col.value("equivalence_tolerance_ratio", "tolerance", units.scientific),
        *sharding_tables.energy_columns(),
        col.WARNINGS,
        col.STATUS,
    ]
    caption = (
        "Medians of the slowest rank at each step. Exposed communication is measured in two ways: how long a rank "
        "waits for it in a whole step (torch's own DDP does not report it), and the difference between the whole step "
        "and a step without communication next to it, each with its 95 % interval. The equivalence check compares the "
        "parameters after a few steps with those of one process on the joined batch, relative to how far they moved."
    )
    return Table("Strategies", sharding_tables.with_energy(caption, rows), rows, columns, held=axes)


def buckets(results: Results) -> Table:
    """Return one row for each bucket size: the step, exposed communication, and what the fit of all-reduce predicts."""
    groups = [group for group in results.groups() if group.point["strategy"] in ("bucketed", "torch_ddp")]
    rows = [_bucket_row(group, results) for group in groups]
    axes = col.rest(results.axes, "strategy", "bucket_mib")
    columns = [
        *col.axis_columns(rows, axes),
        col.value("strategy", text=col.axis_text, numeric=False),
        col.Column("bucket size", lambda row: f"{bucket_mib(row)} MiB"),
        col.value("collectives_per_step", "collectives", col.or_dash),
        col.interval(WHOLE, col.time_unit(rows, (WHOLE,)), "whole step"),
        col.value("exposed_median_s", "exposed", units.seconds),
        col.value("predicted_exposed_s", "exposed by the fit", units.seconds),
        col.value("best_bucket_bytes", "best bucket by the fit", _mib),
        col.WARNINGS,
        col.STATUS,
    ]
    caption = (
        "The fit of all-reduce (latency and bandwidth, see the collectives) and the measured backward time without "
        "communication predict what is exposed if both run side by side, and the bucket size that exposes the least."
    )
    return Table("Bucket size", caption, rows, columns, "The grid has no strategy with buckets.", axes)


def beside(results: Results) -> Table:
    """Return the comparison with torch's own."""
    return paired.beside(results, TARGETS)


def agreements(results: Results) -> Table:
    """Return the duration of an all-reduce in a step and in the experiment on collectives."""
    return agreement.table(
        all_reduces(results),
        "The one all-reduce of the strategy flat, beside what latency and bandwidth of the collectives give for its "
        "bytes; the interval of the latter is the largest error of the fit.",
    )


def projection(results: Results) -> Table:
    """Return the projection to more ranks."""
    return projected.table(results)


def projection_check(results: Results) -> Table:
    """Return the model of the projection beside measured steps."""
    return checked.table(results)


def _row(group: Group) -> dict[str, Any]:
    summaries = {name: group.summary(f"{name}_s") for name in (*PHASES, WHOLE, "comm_wait")}
    summaries["exposed"] = exposed(group)
    whole, bare = summaries[WHOLE], summaries["exposed"]
    keys = ("collectives_per_step", "payload_bytes", "equivalence_difference_ratio", "equivalence_tolerance_ratio")
    return {
        **col.measured(group, summaries, WHOLE),
        **{key: group.scalar(key) for key in keys},
        **sharding_tables.energy(group),
        "exposed_ratio": bare.median / whole.median if bare and whole and whole.median else None,
    }


def _bucket_row(group: Group, results: Results) -> dict[str, Any]:
    fit = chosen(results.others.get("collectives"), "all_reduce", group.point["ranks"], group.point["nodes"])
    backward = group.summary("backward_s")
    payload = group.scalar("payload_bytes") or (group.scalar("parameters") or 0) * 4
    row = _row(group) | dict.fromkeys(("predicted_exposed_s", "best_bucket_bytes", "best_exposed_s"))
    if fit is None or backward is None or not payload:
        return row
    size = bucket_mib(group.point) * MIB
    best, left_s = best_bucket(fit, backward.median, payload)
    return row | {
        "predicted_exposed_s": exposed_by_fit(fit, backward.median, payload, min(size, payload)),
        "best_bucket_bytes": best,
        "best_exposed_s": left_s,
    }


def _mib(found: float | None) -> str:
    return units.NOTHING if found is None else f"{units.number(found / MIB)} MiB"
