"""The tables of sharding: bytes per rank at each moment, predicted and measured, and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepbench.reporting import columns as col
from stepbench.reporting import marks, units
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group, Row
from stepbench.reporting.steps import ENERGY_ON_RANKS, PHASES, WHOLE, energy_joules, token_energy_joules
from stepbench.reporting.tables import Table

VARIANT, SOURCE = "variant", "source"
RESIDENT = ("parameters", "gradients", "optimizer_state")
# A record's name of a moment -> its name in a table.
MOMENTS = {"built": "after init", "synchronization_after": "before the update", "optimizer_after": "after the update"}
REPLICATED = ("replicated", "ddp")


def memory(results: Results) -> Table:
    """Return one row for each variant: bytes by category at each moment and at the peak, predicted and measured."""
    rows = [_memory_row(group) for group in results.groups()]
    axes = col.rest(results.axes, VARIANT, SOURCE)
    columns = [
        *col.axis_columns(rows, axes),
        col.value(VARIANT, text=col.axis_text, numeric=False),
        col.word(SOURCE),
        *(_moment_column(moment, words) for moment, words in MOMENTS.items()),
        col.value("peak_bytes", "peak", units.byte_count),
        col.value("predicted_peak_bytes", "predicted peak", units.byte_count),
        col.value("difference_ratio", "predicted − measured", units.difference),
        col.WARNINGS,
        col.STATUS,
    ]
    caption = (
        "Bytes of the rank that holds the most: parameters + gradients + optimizer state at each moment, in this "
        "order. The peak includes activations and temporary tensors. Predicted: allocations of the strategy's own code "
        "on fake tensors in a simulated process group. In a prediction messages arrive at once, so that buffers "
        "waiting for the network are missing from it. Where a cell is only predicted, so are its moments."
    )
    return Table("Bytes per rank", caption, rows, columns, held=axes)


def time(results: Results) -> Table:
    """Return one row for each variant that was run: phases, step, exposed wait, and the equivalence check."""
    rows = [_time_row(group) for group in measured(results)]
    axes = col.rest(results.axes, VARIANT, SOURCE)
    unit = col.time_unit(rows, (WHOLE,))
    columns = [
        *col.axis_columns(rows, axes),
        col.value(VARIANT, text=col.axis_text, numeric=False),
        *(col.median(name, unit) for name in ("forward", "backward", "synchronization", "optimizer")),
        col.interval(WHOLE, unit, "whole step"),
        *(_wait_column(name, words) for name, words in WAITS.items()),
        col.value("equivalence_difference_ratio", "equivalence error", units.scientific),
        col.value("equivalence_tolerance_ratio", "tolerance", units.scientific),
        *energy_columns(),
        col.WARNINGS,
        col.STATUS,
    ]
    caption = (
        "Medians of the slowest rank at each step. Communication: exposed wait of total duration; the difference "
        "overlapped with computation. torch's own strategies do not report it. The equivalence check compares the "
        "parameters after a few steps with those of one process on the joined batch, relative to how far they moved."
    )
    return Table("Time per step", with_energy(caption, rows), rows, columns, "No cell of the grid is run.", axes)


def energy_columns() -> tuple[col.Column, ...]:
    """Return the columns of a step's energy on all ranks, which are dropped where nobody counted it."""
    return (
        col.value("energy_joules", "energy of a step", units.joules, droppable=True),
        col.value("token_energy_joules", "of a token", units.joules, droppable=True),
    )


def energy(group: Group) -> dict[str, float | None]:
    """Return what these columns show of a point."""
    return {"energy_joules": energy_joules(group), "token_energy_joules": token_energy_joules(group)}


def with_energy(caption: str, rows: Sequence[Row]) -> str:
    """Return a caption that explains the energy where a row tells it."""
    return f"{caption} {ENERGY_ON_RANKS}" if any(row["energy_joules"] is not None for row in rows) else caption


WAITS = {
    "all_gather": "gathering parameters",
    "broadcast": "sending parameters",
    "reduce_scatter": "scattering gradients",
    "all_reduce": "summing gradients",
}


def measured(results: Results) -> list[Group]:
    """Return the points that are run, not only predicted."""
    return [group for group in results.groups() if group.point.get(SOURCE) != "predicted"]


def prefix(group: Group) -> str:
    """Return the prefix of a point's bytes: none for measured ones, else that of the predicted ones."""
    return "" if group.scalar("peak_memory_bytes") is not None else "predicted_"


def at(group: Group, moment: str) -> dict[str, int | None]:
    """Return the bytes of what stays between steps, by category, at a moment of `MOMENTS`."""
    return {category: group.scalar(f"{prefix(group)}{moment}_{category}_bytes") for category in RESIDENT}


def _memory_row(group: Group) -> dict[str, Any]:
    """Return a point's bytes as raw values."""
    peak, predicted = group.scalar("peak_memory_bytes"), group.scalar("predicted_peak_memory_bytes")
    moments = {
        f"{moment}_{category}_bytes": found for moment in MOMENTS for category, found in at(group, moment).items()
    }
    return {
        **col.facts(group),
        **col.warned(marks.fatal(group.marks)),  # load and clocks change no bytes
        **moments,
        "peak_bytes": peak,
        "predicted_peak_bytes": predicted,
        "difference_ratio": predicted / peak - 1 if peak and predicted else None,
    }


def _moment_column(moment: str, words: str) -> col.Column:
    def text(row: Row) -> str:
        """Return the bytes of each category in one unit."""
        found = [row[f"{moment}_{category}_bytes"] for category in RESIDENT]
        if all(each is None for each in found):
            return units.NOTHING
        unit = units.pick(units.BYTES, [max(each or 0 for each in found)])
        return f"{' + '.join(units.number((each or 0) / unit.size) for each in found)} {unit.name}"

    return col.Column(words, text)


def _wait_column(operation: str, words: str) -> col.Column:
    def text(row: Row) -> str:
        waited, busy = row[f"{operation}_wait_median_s"], row[f"{operation}_busy_median_s"]
        return "" if busy is None else f"{units.seconds(waited)} of {units.seconds(busy)}"

    return col.Column(words, text, droppable=True)


def _time_row(group: Group) -> dict[str, Any]:
    names = [*PHASES, "synchronization", WHOLE, "comm_wait"]
    names += [f"{operation}_{kind}" for operation in WAITS for kind in ("wait", "busy")]
    summaries = {name: group.summary(f"{name}_s") for name in names}
    checked = ("equivalence_difference_ratio", "equivalence_tolerance_ratio")
    return col.measured(group, summaries, WHOLE) | {key: group.scalar(key) for key in checked} | energy(group)


def replicated(group: Group, results: Results) -> Group | None:
    """Return the point that keeps everything on every rank and is the same otherwise, of any experiment."""
    everyone = [each for found in (results, *results.others.values()) for each in found.groups()]
    wanted = _alike(group)
    return next((each for each in everyone if each.point.get(VARIANT) in REPLICATED and _alike(each) == wanted), None)


def _alike(group: Group) -> tuple[Any, ...]:
    """Return what two points of these experiments must share to be compared."""
    axes = (SOURCE, "size", "context", "batch", "ranks", "nodes", "optimizer")
    dtype = group.point.get("compute_dtype") or group.point.get("precision")
    return (*(group.point.get(axis) for axis in axes), dtype, group.point.get("parameter_dtype", "fp32"))
