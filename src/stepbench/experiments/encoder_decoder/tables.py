"""The tables of whole epochs: the summary, each epoch by itself, what the disk changes, what more ranks change."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.encoder_decoder.epochs import AXES, KEY, by_epoch, mean, row
from stepbench.reporting import comparisons, units
from stepbench.reporting.frames import Group, Results
from stepbench.reporting.steps import one_line, time_unit
from stepbench.reporting.tables import (
    MARKS,
    STATUS,
    Column,
    Row,
    Table,
    axis_columns,
    axis_text,
    frame,
    held_constant,
    or_dash,
    value,
)


def summary(results: Results) -> Table:
    """Return one row for each point: the epoch, rates over all ranks, waiting for data, memory, load of the device."""
    rows = [row(group) for group in results.groups()]
    rest = [axis for axis in results.axes if axis not in (*AXES, "replicate")]
    unit = time_unit(rows, ("epoch",))
    memory = "peak_memory_bytes" if any(each["peak_memory_bytes"] is not None for each in rows) else "peak_host_bytes"
    columns = [
        *axis_columns(rows, ["preset"]),
        value("data", text=axis_text, numeric=False),
        value("ranks"),
        *axis_columns(rows, rest),
        value("effective_batch", "effective batch", or_dash),
        one_line("epoch", unit, "one epoch"),
        Column("samples/s", lambda row: units.number(row["samples_per_s"])),
        Column("tokens/s", lambda row: units.number(row["tokens_per_s"])),
        Column("waits for data", lambda row: units.percent(row["data_wait_ratio"])),
        Column("the loader alone", lambda row: units.byte_rate(row["loader_bytes_per_s"])),
        Column("peak memory" if memory == "peak_memory_bytes" else "peak host memory of a rank",
               lambda row: units.byte_count(row[memory])),
        Column("device busy", lambda row: units.percent(row["utilisation_ratio"])),
        Column("power", _watts, droppable=True),
        Column("loss, first to last epoch", _losses),
        MARKS,
        STATUS,
    ]  # fmt: skip
    told = (
        "Medians over the measured epochs, after one of warm-up; of many ranks the slowest counts. Samples and tokens "
        "(of source and target) are those of all ranks. Waiting for data is what a rank spends asking for the next "
        "batch; the loader alone is what it delivers to all ranks while nobody trains. How busy the device is was "
        f"sampled in the background, a CPU's with all that runs on it. {held_constant(rows, [*rest, 'preset'])}"
    ).strip()
    return Table("summary", "Epochs", told, frame(rows), columns, "The grid has no cell.")


def epochs(results: Results) -> Table:
    """Return one row for each measured epoch of each process: its time, its rate, what it waited for, its loss."""
    rows = [each for group in results.groups() for each in _epoch_rows(group)]
    rest = [axis for axis in results.axes if axis not in (*AXES, "replicate")]
    unit = units.pick(units.SECONDS, [each["epoch_s"] for each in rows])
    columns = [
        *axis_columns(rows, ["preset"]),
        value("data", text=axis_text, numeric=False),
        value("ranks"),
        *axis_columns(rows, [*rest, "replicate"]),
        value("epoch"),
        Column(f"time ({unit.name})", lambda row: units.number(row["epoch_s"] / unit.size)),
        Column("samples/s", lambda row: units.number(row["samples_per_s"])),
        Column("waits for data", lambda row: units.percent(row["data_wait_ratio"])),
        Column("loss", lambda row: f"{row['loss_nats']:.3f}"),
    ]
    told = (
        "The slowest rank's time, and the longest wait; the loss is the mean over ranks and steps, in nats. The same "
        "seed gives the same samples in the same order from memory and from disk. "
        f"{held_constant(rows, [*rest, 'preset'])}"
    ).strip()
    return Table("epochs", "Epoch by epoch", told, frame(rows), columns, "No epoch has been measured.")


def disk(results: Results) -> Table:
    """Return what reading from disk changes."""
    return comparisons.table(
        comparisons.pairs(results, "data", "memory", KEY),
        name="disk",
        title="Memory against disk",
        caption="The same epoch with its samples in memory and read from shards; the kernel is asked to forget the "
        "shards before each epoch.",
        empty="The grid has no epoch both ways.",
        key=KEY,
    )


def scaling(results: Results) -> Table:
    """Return how much of each further rank is left: samples/s over those of one rank."""
    rows = [each for group in results.groups() if (each := _scaled(group, results)) is not None]
    rest = [axis for axis in results.axes if axis not in (*AXES, "replicate")]
    columns = [
        *axis_columns(rows, ["preset"]),
        value("data", text=axis_text, numeric=False),
        value("ranks"),
        *axis_columns(rows, rest),
        Column("samples/s", lambda row: units.number(row["samples_per_s"])),
        Column("of one rank's", lambda row: units.ratio(row["speedup_ratio"])),
        Column("left of each rank", lambda row: units.percent(row["efficiency_ratio"])),
    ]
    told = (
        "Every rank keeps its batch, so that the effective batch grows with the ranks (weak scaling). "
        f"{held_constant(rows, [*rest, 'preset'])}"
    ).strip()
    empty = "The grid has no epoch on one rank and on more."
    return Table("scaling", "More ranks", told, frame(rows), columns, empty)


def _epoch_rows(group: Group) -> list[dict[str, Any]]:
    found = []
    for record in group.records:
        sides = zip(*(by_epoch(record.samples[key]) for key in (KEY, "data_wait_s", "loss_nats")), strict=True)
        for number, (seconds, waits, losses) in enumerate(sides, start=1):
            found.append(
                {
                    **group.point,
                    "replicate": record.cell["replicate"],
                    "epoch": number,
                    "epoch_s": max(seconds),
                    "samples_per_s": record.scalars["samples_per_epoch"] / max(seconds),
                    "data_wait_ratio": max(waits) / max(seconds),
                    "loss_nats": mean(losses),
                    "records": {"": group.paths},
                }
            )
    return found


def _scaled(group: Group, results: Results) -> dict[str, Any] | None:
    """Return how a point of several ranks stands to that of one rank, or None where one of them has no numbers."""
    if group.point["ranks"] == 1:
        return None
    alone = next((each for each in results.groups() if each.point == group.point | {"ranks": 1}), None)
    rates = [row(each)["samples_per_s"] for each in (group, alone) if each is not None]
    if len(rates) < 2 or not all(rates):
        return None
    speedup = rates[0] / rates[1]
    return {
        **group.point,
        "samples_per_s": rates[0],
        "speedup_ratio": speedup,
        "efficiency_ratio": speedup / group.point["ranks"],
        "records": {"one": alone.paths if alone else [], "these": group.paths},
    }


def _watts(row: Row) -> str:
    return "" if row["power_watts"] is None else f"{units.number(row['power_watts'])} W"


def _losses(row: Row) -> str:
    if row["first_loss_nats"] is None:
        return units.NOTHING
    return f"{row['first_loss_nats']:.3f} to {row['last_loss_nats']:.3f}"
