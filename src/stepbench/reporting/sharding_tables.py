"""The tables of what is sharded: bytes of a rank at each moment, predicted beside measured, and time."""

from __future__ import annotations

from typing import Any

from stepbench.reporting import markup, units
from stepbench.reporting.frames import Group, Results
from stepbench.reporting.steps import PHASES, WHOLE, median_alone, one_line, statistics_of, time_unit
from stepbench.reporting.tables import (
    MARKS,
    STATUS,
    Column,
    Row,
    Table,
    axis_columns,
    axis_text,
    facts,
    frame,
    held_constant,
    value,
)

VARIANT, SOURCE = "variant", "source"
RESIDENT = ("parameters", "gradients", "optimizer_state")
# What a record calls a moment -> what people do.
MOMENTS = {"built": "after init", "synchronization_after": "before the update", "optimizer_after": "after the update"}
REPLICATED = ("replicated", "ddp")
AXES_NOT_SHOWN = (VARIANT, SOURCE, "replicate")


def memory(results: Results) -> Table:
    """Return one row for each variant: bytes by category at each moment and at the peak, predicted and measured."""
    rows = [memory_row(group) for group in results.groups()]
    axes = [axis for axis in results.axes if axis not in AXES_NOT_SHOWN]
    columns = [
        *axis_columns(rows, axes),
        value(VARIANT, text=axis_text, numeric=False),
        value(SOURCE, "", markup.escape, numeric=False),
        *(_moment_column(moment, words) for moment, words in MOMENTS.items()),
        Column("peak", lambda row: units.byte_count(row["peak_bytes"])),
        Column("predicted peak", lambda row: units.byte_count(row["predicted_peak_bytes"])),
        Column("predicted against measured", lambda row: units.difference(row["difference_ratio"])),
        MARKS,
        STATUS,
    ]
    told = (
        "Bytes of the rank that has the most: parameters + gradients + optimizer state at each moment, in this order. "
        "The peak counts activations and all that is temporary as well. Predicted is what the strategy's own code "
        "allocates on fake tensors in a process group that pretends; measured is what the rank did allocate. In a "
        "prediction messages arrive at once, so that buffers which wait for the wire are missing from it. Where "
        f"a cell is predicted alone, its moments are predicted too. {held_constant(rows, axes)}"
    ).strip()
    return Table("memory", "Bytes per rank", told, frame(rows), columns, "The grid has no cell.")


def time(results: Results) -> Table:
    """Return one row for each variant that was run: its phases, its step, what it waited for, equivalence check."""
    groups = measured(results)
    rows = [_time_row(group) for group in groups]
    axes = [axis for axis in results.axes if axis not in AXES_NOT_SHOWN]
    names = ("forward", "backward", "synchronization", "optimizer", "step")
    unit = time_unit(rows, (WHOLE,))
    columns = [
        *axis_columns(rows, axes),
        value(VARIANT, text=axis_text, numeric=False),
        *(median_alone(name, unit) for name in names[:-1]),
        one_line(WHOLE, unit, "whole step"),
        *(_waited_column(name, words) for name, words in WAITS.items()),
        Column("error of the equivalence check", lambda row: units.scientific(row["equivalence_difference_ratio"])),
        Column("allowed", lambda row: units.scientific(row["equivalence_tolerance_ratio"])),
        MARKS,
        STATUS,
    ]
    told = (
        "Medians of the slowest rank at each step. Of communication: how long the rank stood still for it, of how long "
        "it was under way; the rest was hidden. torch's own strategies do not tell. The equivalence check compares "
        f"parameters with those of one process on the joined batch, over the way they went. {held_constant(rows, axes)}"
    ).strip()
    return Table("time", "Time per step", told, frame(rows), columns, "No cell of the grid is run.")


WAITS = {
    "all_gather": "gathering parameters",
    "broadcast": "sending parameters",
    "reduce_scatter": "scattering gradients",
    "all_reduce": "summing gradients",
}


def measured(results: Results) -> list[Group]:
    """Return the points that are run, not predicted alone."""
    return [group for group in results.groups() if group.point.get(SOURCE) != "predicted"]


def prefix(group: Group) -> str:
    """Return how the names of a point's bytes begin: those that were measured, or else predicted."""
    return "" if group.scalar("peak_memory_bytes") is not None else "predicted_"


def at(group: Group, moment: str) -> dict[str, int | None]:
    """Return the bytes of what stays between steps at a moment of `MOMENTS`, by category."""
    return {category: group.scalar(f"{prefix(group)}{moment}_{category}_bytes") for category in RESIDENT}


def memory_row(group: Group) -> dict[str, Any]:
    """Return a point's bytes as raw values."""
    peak, predicted = group.scalar("peak_memory_bytes"), group.scalar("predicted_peak_memory_bytes")
    moments = {
        f"{moment}_{category}_bytes": found for moment in MOMENTS for category, found in at(group, moment).items()
    }
    return {
        **facts(group),
        **moments,
        "peak_bytes": peak,
        "predicted_peak_bytes": predicted,
        "difference_ratio": predicted / peak - 1 if peak and predicted else None,
    }


def _moment_column(moment: str, words: str) -> Column:
    def text(row: Row) -> str:
        found = [row[f"{moment}_{category}_bytes"] for category in RESIDENT]
        if all(each is None for each in found):
            return units.NOTHING
        unit = units.pick(units.BYTES, [max(each or 0 for each in found)])
        return f"{' + '.join(units.number((each or 0) / unit.size) for each in found)} {unit.name}"

    return Column(words, text)


def _waited_column(operation: str, words: str) -> Column:
    def text(row: Row) -> str:
        waited, busy = row[f"{operation}_wait_median_s"], row[f"{operation}_busy_median_s"]
        return "" if busy is None else f"{units.seconds(waited)} of {units.seconds(busy)}"

    return Column(words, text, droppable=True)


def _time_row(group: Group) -> dict[str, Any]:
    names = [*PHASES, "synchronization", WHOLE, "comm_wait"]
    names += [f"{operation}_{kind}" for operation in WAITS for kind in ("wait", "busy")]
    summaries = {name: group.summary(f"{name}_s") for name in names}
    whole = summaries[WHOLE]
    row: dict[str, Any] = facts(group, whole.marks if whole else ())
    for name, summary in summaries.items():
        row |= statistics_of(name, summary)
    return row | {key: group.scalar(key) for key in ("equivalence_difference_ratio", "equivalence_tolerance_ratio")}


def replicated(group: Group, results: Results) -> Group | None:
    """Return the point that keeps everything on every rank and is the same otherwise, of any experiment."""
    everyone = [each for found in (results, *results.others.values()) for each in found.groups()]
    wanted = _alike(group)
    return next((each for each in everyone if each.point.get(VARIANT) in REPLICATED and _alike(each) == wanted), None)


def _alike(group: Group) -> tuple[Any, ...]:
    """Return what two points of these experiments must share to be compared."""
    axes = (SOURCE, "size", "context", "batch", "ranks", "optimizer")
    dtype = group.point.get("compute_dtype") or group.point.get("precision")
    return (*(group.point.get(axis) for axis in axes), dtype, group.point.get("parameter_dtype", "fp32"))
