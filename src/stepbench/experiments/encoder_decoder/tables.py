"""The tables of whole epochs: summary, each epoch, memory against disk, and scaling."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.encoder_decoder.epochs import AXES, KEY, by_epoch, mean, row
from stepbench.reporting import columns as col
from stepbench.reporting import comparisons, units
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group, Row
from stepbench.reporting.tables import Table


def summary(results: Results) -> Table:
    """Return one row for each point: the epoch, rates over all ranks, waiting for data, memory, load of the device."""
    rows = [row(group) for group in results.groups()]
    device = any(each["peak_memory_bytes"] is not None for each in rows)
    memory = ("peak_memory_bytes", "peak memory") if device else ("peak_host_bytes", "peak host memory of a rank")
    columns = [
        *_names(rows, results),
        col.value("effective_batch", text=col.or_dash),
        col.interval("epoch", col.time_unit(rows, ("epoch",)), "one epoch"),
        col.value("samples_per_s", "samples/s", units.number),
        col.value("tokens_per_s", "tokens/s", units.number),
        col.value("data_wait_ratio", "waiting for data", units.percent),
        col.value("loader_bytes_per_s", "loader alone", units.byte_rate),
        col.value(*memory, units.byte_count),
        col.value("utilisation_ratio", "device busy", units.percent),
        col.Column("power", _watts, droppable=True),
        col.Column("loss, first to last epoch", _losses),
        col.WARNINGS,
        col.STATUS,
    ]
    caption = (
        "Medians over the measured epochs, after one of warm-up; with several ranks the slowest counts. Samples and "
        "tokens (of source and target) are those of all ranks. Waiting for data: the time a rank needs to get its next "
        "batch. Loader alone: what it delivers to all ranks without training. Device busy is sampled in the "
        "background; on a CPU it includes everything that runs there."
    )
    return Table("Epochs", caption, rows, columns, held=_constant(results))


def epochs(results: Results) -> Table:
    """Return one row for each measured epoch of each process: its time, rate, wait for data, and loss."""
    rows = [each for group in results.groups() for each in _epoch_rows(group)]
    unit = units.pick(units.SECONDS, [each["epoch_s"] for each in rows])
    columns = [
        *_names(rows, results),
        *col.axis_columns(rows, ["replicate"]),
        col.value("epoch"),
        col.Column("time", lambda row: units.number(row["epoch_s"] / unit.size), unit.name),
        col.value("samples_per_s", "samples/s", units.number),
        col.value("data_wait_ratio", "waiting for data", units.percent),
        col.value("loss_nats", "loss", lambda found: f"{found:.3f}"),
    ]
    caption = (
        "The slowest rank's time, and the longest wait; the loss is the mean over ranks and steps, in nats. The same "
        "seed gives the same samples in the same order from memory and from disk."
    )
    return Table("Epoch by epoch", caption, rows, columns, "No epoch has been measured.", _constant(results))


def disk(results: Results) -> Table:
    """Return what reading from disk changes."""
    return comparisons.table(
        comparisons.pairs(results, "data", "memory", KEY),
        title="Memory against disk",
        caption="The same epoch with its samples in memory and read from shards; before each epoch the kernel is asked "
        "to drop the shards from its cache.",
        empty="The grid has no epoch both ways.",
        key=KEY,
    )


def scaling(results: Results) -> Table:
    """Return the scaling efficiency: samples/s over those of one rank."""
    rows = [each for group in results.groups() if (each := _scaled(group, results)) is not None]
    columns = [
        *_names(rows, results),
        col.value("samples_per_s", "samples/s", units.number),
        col.value("speedup_ratio", "over one rank", units.ratio),
        col.value("efficiency_ratio", "scaling efficiency", units.percent),
    ]
    caption = "Every rank has the same batch, so that the effective batch grows with the ranks (weak scaling)."
    return Table(
        "More ranks", caption, rows, columns, "The grid has no epoch on one rank and on more.", _constant(results)
    )


def _names(rows: list[dict[str, Any]], results: Results) -> list[col.Column]:
    return [
        *col.axis_columns(rows, ["preset"]),
        col.value("data", text=col.axis_text, numeric=False),
        col.value("ranks"),
        *col.axis_columns(rows, col.rest(results.axes, *AXES)),
    ]


def _constant(results: Results) -> list[str]:
    return [*col.rest(results.axes, *AXES), "preset"]


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
    """Return a point of several ranks relative to one rank, or None where one of them has no numbers."""
    if group.point["ranks"] == 1:
        return None
    alone = results.group(**group.point | {"ranks": 1})
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
