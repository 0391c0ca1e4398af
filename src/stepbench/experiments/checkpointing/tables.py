"""The tables of checkpointing."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.checkpointing.groupings import GROUPING, Grouping, models, saved_of
from stepbench.reporting import columns as col
from stepbench.reporting import units
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group
from stepbench.reporting.tables import Table


def groups(results: Results) -> Table:
    """Return one row for each grouping: saved activations, peak, time, and each relative to no checkpointing."""
    rows = [_row(each) for groupings in models(results.groups()) for each in groupings]
    axes = col.rest(results.axes, GROUPING)
    columns = [
        *col.axis_columns(rows, axes),
        col.word("grouping", "checkpointed"),
        col.value("kept_activation_bytes", "saved activations", units.byte_count),
        col.value("kept_ratio", "relative to none", units.ratio),
        col.value("peak_activation_bytes", "peak of activations", units.byte_count),
        col.value("peak_ratio", "relative to none", units.ratio),
        col.value("peak_memory_bytes", "peak memory", units.byte_count),
        col.interval("step", col.time_unit(rows, ("step",))),
        col.ratio("slowdown", "relative to none"),
        col.WARNINGS,
        col.STATUS,
    ]
    caption = (
        "The peak of activations is the most that forward and backward pass hold beside parameters, gradients and "
        "optimizer state, recomputed activations included. Times were taken without the profiler, in another instance "
        "of the model than the bytes."
    )
    return Table("Checkpointed groups of blocks", caption, rows, columns, held=axes)


def saved(results: Results) -> Table:
    """Return one row for each operation of one block that saves tensors, for each model and step."""
    rows = []
    for groupings in models(results.groups()):
        known = next((each.group for each in groupings if each.group.records), None)
        rows += _saved_rows(known) if known else []
    axes = col.rest(results.axes, GROUPING)
    columns = [
        *col.axis_columns(rows, axes),
        col.word("operation"),
        col.value("calls"),
        col.value("saved_bytes", "saved", units.byte_count),
        col.value("share_ratio", "share of the block", units.percent),
    ]
    caption = (
        "Activations that one block saves for its backward pass without checkpointing, by autograd's name of the "
        "operation. A tensor that several operations save counts with the first. The block's input counts, parameters "
        "do not."
    )
    return Table("Saved activations of one block", caption, rows, columns, "No cell has numbers.", axes)


def _row(grouping: Grouping) -> dict[str, Any]:
    group = grouping.group
    summary = group.summary("step_s")
    slowdown = dict(
        zip(("slowdown_ratio", "slowdown_low_ratio", "slowdown_high_ratio"), grouping.slowdown, strict=True)
    )
    plain = grouping.is_plain
    return {
        **col.measured(group, {"step": summary}, "step"),
        "grouping": grouping.name,
        "blocks": group.scalar("blocks"),
        "theoretical_best_blocks": grouping.theory_blocks,
        "kept_activation_bytes": grouping.kept_bytes,
        "peak_activation_bytes": grouping.peak_bytes,
        "peak_memory_bytes": group.scalar("peak_memory_bytes"),
        "kept_ratio": None if plain else grouping.over_plain("kept_activation_bytes"),
        "peak_ratio": None if plain else grouping.over_plain("peak_activation_bytes"),
        **slowdown,
    }


def _saved_rows(group: Group) -> list[dict[str, Any]]:
    found = saved_of(group)
    total = sum(each["saved_bytes"] for each in found)
    point = {axis: value for axis, value in group.point.items() if axis != GROUPING}
    shares = [{**each, "share_ratio": each["saved_bytes"] / total} for each in found]
    return [{**point, **share, col.RECORDS: {"": group.paths}} for share in shares]
