"""The tables of the checkpointing experiment."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.checkpointing.groupings import GROUPING, Grouping, models, saved_of
from stepbench.reporting import markup, units
from stepbench.reporting.frames import Group, Results
from stepbench.reporting.steps import one_line, statistics_of, time_unit
from stepbench.reporting.tables import (
    MARKS,
    RECORDS,
    STATUS,
    Column,
    Table,
    axis_columns,
    facts,
    frame,
    held_constant,
    value,
)


def groups(results: Results) -> Table:
    """Return one row for each grouping: what it keeps, its peak, its time, and both against no checkpointing."""
    rows = [_row(each) for groupings in models(results.groups()) for each in groupings]
    axes = [axis for axis in results.axes if axis not in (GROUPING, "replicate")]
    unit = time_unit(rows, ("step",))
    columns = [
        *axis_columns(rows, axes),
        value("grouping", "checkpointed", markup.escape, numeric=False),
        Column("kept for the backward pass", lambda row: units.byte_count(row["kept_activation_bytes"])),
        Column("against none", lambda row: units.ratio(row["kept_ratio"])),
        Column("peak of activations", lambda row: units.byte_count(row["peak_activation_bytes"])),
        Column("against none", lambda row: units.ratio(row["peak_ratio"])),
        Column("peak of all", lambda row: units.byte_count(row["peak_memory_bytes"])),
        one_line("step", unit, "step"),
        Column(
            "against none", lambda row: units.ratio(*(row[f"slowdown_{part}ratio"] for part in ("", "low_", "high_")))
        ),
        MARKS,
        STATUS,
    ]
    told = (
        "The peak of activations is the most that forward and backward pass hold beside parameters, gradients and "
        "optimizer state; what is computed again counts. Times were taken without the profiler, in another model than "
        f"the bytes. {held_constant(rows, axes)}"
    ).strip()
    return Table("groups", "Checkpointed groups of blocks", told, frame(rows), columns, "The grid has no cell.")


def saved(results: Results) -> Table:
    """Return one row for each operation of one block that keeps something, for each model and step."""
    rows = []
    for groupings in models(results.groups()):
        known = next((each.group for each in groupings if each.group.records), None)
        rows += _saved_rows(known) if known else []
    axes = [axis for axis in results.axes if axis not in (GROUPING, "replicate")]
    columns = [
        *axis_columns(rows, axes),
        value("operation", text=markup.escape, numeric=False),
        value("calls"),
        Column("kept", lambda row: units.byte_count(row["saved_bytes"])),
        Column("share of the block", lambda row: units.percent(row["share_ratio"])),
    ]
    told = (
        "What one block keeps for its backward pass if it is not checkpointed, by autograd's name of the operation. A "
        "tensor that several operations keep counts with the first; parameters do not count, the block's input does. "
        f"{held_constant(rows, axes)}"
    ).strip()
    empty = "No cell has numbers."
    return Table("saved", "What one block keeps", told, frame(rows), columns, empty)


def _row(grouping: Grouping) -> dict[str, Any]:
    group = grouping.group
    summary = group.summary("step_s")
    slowdown = dict(
        zip(("slowdown_ratio", "slowdown_low_ratio", "slowdown_high_ratio"), grouping.slowdown, strict=True)
    )
    plain = grouping.is_plain
    return {
        **facts(group, summary.marks if summary else ()),
        "grouping": grouping.name,
        "blocks": group.scalar("blocks"),
        "theoretical_best_blocks": grouping.theory_blocks,
        "kept_activation_bytes": grouping.kept_bytes,
        "peak_activation_bytes": grouping.peak_bytes,
        "peak_memory_bytes": group.scalar("peak_memory_bytes"),
        "kept_ratio": None if plain else grouping.over_plain("kept_activation_bytes"),
        "peak_ratio": None if plain else grouping.over_plain("peak_activation_bytes"),
        **statistics_of("step", summary),
        **slowdown,
    }


def _saved_rows(group: Group) -> list[dict[str, Any]]:
    found = saved_of(group)
    total = sum(each["saved_bytes"] for each in found)
    point = {axis: value for axis, value in group.point.items() if axis != GROUPING}
    shares = [{**each, "share_ratio": each["saved_bytes"] / total} for each in found]
    return [{**point, **share, RECORDS: {"": group.paths}} for share in shares]
