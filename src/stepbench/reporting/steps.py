"""What a timed training step's samples and scalars come to: phases, rates, utilisation, and the columns that show them.

Model FLOPs utilisation (MFU) is the FLOPs of the matrix products that the model needs, over the time of the whole step,
over a peak. The count is that of `stepbench.models.costs`, whose docstring has the convention.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from stepbench.reporting import conditions, markup, sense, units
from stepbench.reporting.frames import Group
from stepbench.reporting.marks import Mark
from stepbench.reporting.peaks import Peaks
from stepbench.reporting.sense import WHOLE as WHOLE
from stepbench.reporting.sense import flops as flops
from stepbench.reporting.statistics import INTERVAL_LEVEL, Summary
from stepbench.reporting.tables import (
    MARKS,
    STATUS,
    Column,
    Row,
    Table,
    axis_columns,
    facts,
    frame,
    held_constant,
)
from stepbench.reporting.units import Unit

PHASES = ("forward", "backward", "optimizer")
FLOP_CONVENTION = "the FLOPs of the model's matrix products (PaLM's and Megatron-LM's count) over time and peak"
FLOP_FORMULA = (
    "the FLOPs of the forward pass are 2·tokens·(layers·(4·d_model² + 3·d_model·d_ff) + vocabulary·d_model) + "
    "4·layers·tokens·context·d_model, those of the backward pass twice that: matrix products alone, a multiply-add is 2"
)

TIMING = "Phases are timed with a synchronisation after each, the whole step with one at its end."
READING = f"Medians; that of the whole step with its {100 * INTERVAL_LEVEL:.0f} % interval. {TIMING}"
READING_WIDE = (
    f"First line: the median with its {100 * INTERVAL_LEVEL:.0f} % interval; second line: mean ± standard deviation, "
    f"and the coefficient of variation (CV). {TIMING}"
)


def row(group: Group, peaks: Peaks) -> dict[str, Any]:
    """Return the raw values of a point of the grid: the point itself, its samples' statistics, and what follows."""
    summaries = {name: group.summary(f"{name}_s") for name in (*PHASES, WHOLE)}
    whole = summaries[WHOLE]
    measured, vendor = utilisation(group, peaks)
    tokens = group.scalar("tokens_per_step")
    values: dict[str, Any] = {
        "parameters": group.scalar("parameters"),
        "samples": whole.samples if whole else None,
        "processes": whole.processes if whole else None,
        "interval": whole.basis if whole else None,
    }
    for name, summary in summaries.items():
        values |= statistics_of(name, summary)
    return {
        **facts(group, marks(group, peaks)),
        **values,
        "backward_forward_ratio": _over(summaries["backward"], summaries["forward"]),
        "tokens_per_s": tokens / whole.median if tokens and whole and whole.median else None,
        "flops": flops(group),
        "mfu_measured_ratio": measured,
        "mfu_vendor_ratio": vendor,
        "peak_memory_bytes": group.scalar("peak_memory_bytes"),
        "peak_host_bytes": group.scalar("peak_host_bytes"),
    }


def table(
    groups: Sequence[Group],
    peaks: Peaks,
    *,
    name: str,
    title: str,
    caption: str,
    empty: str,
    wide: bool = False,
) -> Table:
    """Return a table with a row for each point.

    Args:
        groups: the points.
        peaks: what utilisation is told against.
        name: the table's name.
        title: its heading.
        caption: what it shows.
        empty: what to say where there is no point.
        wide: whether mean, standard deviation and CV stand below the medians.
    """
    rows = [row(group, peaks) for group in groups]
    axes = list(groups[0].point) if groups else []
    unit = time_unit(rows)
    columns = [
        Column("size", _size_text if wide else lambda row: markup.escape(row["size"]), numeric=False),
        *axis_columns(rows, [axis for axis in axes if axis != "size"]),
        *((two_lines if wide else median_alone)(phase, unit) for phase in PHASES),
        (two_lines if wide else one_line)(WHOLE, unit, "whole step"),
        Column("backward / forward", lambda row: units.ratio(row["backward_forward_ratio"])),
        *rate_columns(rows),
        MARKS,
        STATUS,
    ]
    told = " ".join([READING_WIDE if wide else READING, caption, held_constant(rows, axes)]).strip()
    return Table(name, title, told, frame(rows), columns, empty)


def _size_text(row: Row) -> str:
    parameters = f"{markup.BREAK}{units.count(row['parameters'])}" if row["parameters"] else ""
    return f"{markup.escape(row['size'])}{parameters}"


def statistics_of(name: str, summary: Summary | None) -> dict[str, Any]:
    """Return a summary as raw columns; None in each where there is none."""
    keys = ("mean", "std", "median", "low", "high", "iqr")
    found = {f"{name}_{key}_s": getattr(summary, key) if summary else None for key in keys}
    return found | {f"{name}_cv_ratio": summary.cv_ratio if summary else None}


def phase_sums(group: Group) -> list[list[float]]:
    """Return for each process the sum of a step's phases, step by step.

    Where warming up matters this is the number to look at: the whole steps are timed after those by phases, when the
    process is warm however few steps of warm-up it had.
    """
    found = []
    for record in group.records:
        present = [record.samples[f"{phase}_s"] for phase in PHASES if record.samples.get(f"{phase}_s")]
        if present:
            found.append([sum(step) for step in zip(*present, strict=True)])
    return found


def utilisation(group: Group, peaks: Peaks) -> tuple[float | None, float | None]:
    """Return MFU against the measured peak and against the vendor's, of the dtype that the cell computes in."""
    whole, work = group.summary(f"{WHOLE}_s"), flops(group)
    if whole is None or not whole.median or work is None:
        return None, None
    dtype = group.point.get("precision", "fp32")
    measured, vendor = peaks.flops_per_s(dtype), peaks.vendor_flops_per_s.get(dtype)
    rate = work / whole.median
    return rate / measured if measured else None, rate / vendor if vendor else None


def marks(group: Group, peaks: Peaks) -> list[Mark]:
    """Return what a reader should know about a point's numbers, one mark of a kind for all phases.

    Args:
        group: the point.
        peaks: what no utilisation can be above.
    """
    details: dict[str, list[str]] = {}
    for name in (*PHASES, WHOLE):
        summary = group.summary(f"{name}_s")
        for mark in summary.marks if summary else ():
            if mark not in group.marks:
                details.setdefault(mark.kind, []).append(f"{name} {mark.detail}")
    of_samples = [Mark(kind, ", ".join(told)) for kind, told in details.items()]
    return [*of_samples, *conditions.find(group.records), *sense.find(group, peaks)]


def time_unit(rows: Iterable[Row], names: Sequence[str] = (*PHASES, WHOLE)) -> Unit:
    """Return the unit that a table's times share: that of its shortest median."""
    return units.pick(units.SECONDS, [row.get(f"{name}_median_s") for row in rows for name in names])


def two_lines(name: str, unit: Unit, heading: str | None = None) -> Column:
    """Return a column with the median and its interval, and below it mean, standard deviation and CV."""

    def text(row: Row) -> str:
        if row[f"{name}_median_s"] is None:
            return units.NOTHING
        cv = row[f"{name}_cv_ratio"]
        below = units.plus_minus(row[f"{name}_mean_s"], row[f"{name}_std_s"], per=unit.size)
        return f"{middle(name, unit, row)}{markup.BREAK}{below}{f' ({units.percent(cv)})' if cv is not None else ''}"

    return Column(f"{heading or name} ({unit.name})", text)


def median_alone(name: str, unit: Unit) -> Column:
    """Return a column with the median, in as many digits as its interval leaves."""

    def text(row: Row) -> str:
        return middle(name, unit, row).partition(" [")[0]

    return Column(f"{name} ({unit.name})", text)


def one_line(name: str, unit: Unit, heading: str | None = None) -> Column:
    """Return a column with the median and its interval."""
    return Column(f"{heading or name} ({unit.name})", lambda row: middle(name, unit, row))


def middle(name: str, unit: Unit, row: Row) -> str:
    """Return `median [low, high]` of a row's statistics."""
    values = (row[f"{name}_{key}_s"] for key in ("median", "low", "high"))
    return units.middle(*values, per=unit.size)


def rate_columns(rows: Sequence[Row]) -> list[Column]:
    """Return columns for tokens/s, MFU against both peaks, and peak memory of the device or else of the host."""
    device = any(row["peak_memory_bytes"] is not None for row in rows)
    memory = "peak_memory_bytes" if device else "peak_host_bytes"
    vendor = any(row["mfu_vendor_ratio"] is not None for row in rows)
    peaks = ("measured", "vendor") if vendor else ("measured",)
    heading = f"MFU of measured peak{markup.BREAK}of vendor's peak" if vendor else "MFU of measured peak"
    return [
        Column("tokens/s", lambda row: units.number(row["tokens_per_s"])),
        Column(heading, lambda row: markup.BREAK.join(units.percent(row[f"mfu_{peak}_ratio"]) for peak in peaks)),
        Column("peak memory" if device else "peak host memory", lambda row: units.byte_count(row[memory])),
    ]


def _over(above: Summary | None, below: Summary | None) -> float | None:
    return above.median / below.median if above and below and below.median else None
