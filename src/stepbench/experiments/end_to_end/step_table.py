"""A timed training step as a row: phases, rates, utilisation, memory.

Model FLOPs utilisation (MFU) is the FLOPs of the model's matrix products over the time of the whole step and over a
peak. The count is that of `stepbench.models.costs`, whose docstring has the convention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepbench.reporting import columns as col
from stepbench.reporting import marks, markup, units
from stepbench.reporting.marks import Mark
from stepbench.reporting.peaks import Peaks
from stepbench.reporting.points import Group, Row
from stepbench.reporting.statistics import INTERVAL_LEVEL, Summary
from stepbench.reporting.steps import ENERGY, PHASES, WHOLE, energy_joules, flops, token_energy_joules
from stepbench.reporting.tables import Table
from stepbench.reporting.units import Unit

TIMES = (*PHASES, WHOLE)
FLOP_CONVENTION = "the FLOPs of the model's matrix products (the count of PaLM and Megatron-LM) over time and peak"
TIMING = "Phases are timed with a synchronisation after each, the whole step with one at its end."
READING = f"Medians; that of the whole step with its {100 * INTERVAL_LEVEL:.0f} % interval. {TIMING}"
READING_WIDE = (
    f"First line: the median with its {100 * INTERVAL_LEVEL:.0f} % interval; second line: mean ± standard deviation, "
    f"and the coefficient of variation (CV). {TIMING}"
)


def row(group: Group, peaks: Peaks) -> dict[str, Any]:
    """Return the raw values of a point: its axes, its samples' statistics, and what follows from them."""
    summaries = {name: group.summary(f"{name}_s") for name in TIMES}
    whole = summaries[WHOLE]
    measured, vendor = utilisation(group, peaks)
    tokens = group.scalar("tokens_per_step")
    forward, backward = group.scalar("forward_flops"), group.scalar("backward_flops")
    values: dict[str, Any] = {
        "parameters": group.scalar("parameters"),
        "samples": whole.samples if whole else None,
        "processes": whole.processes if whole else None,
        "interval": whole.basis if whole else None,
    }
    for name, summary in summaries.items():
        values |= col.statistics_of(name, summary)
    return {
        **col.facts(group, warnings(group)),
        **values,
        "backward_forward_ratio": _over(summaries["backward"], summaries["forward"]),
        "backward_forward_flops_ratio": forward and backward and backward / forward,
        "tokens_per_s": tokens / whole.median if tokens and whole and whole.median else None,
        "flops": flops(group),
        "mfu_measured_ratio": measured,
        "mfu_vendor_ratio": vendor,
        "peak_memory_bytes": group.scalar("peak_memory_bytes"),
        "peak_host_bytes": group.scalar("peak_host_bytes"),
        "energy_joules": energy_joules(group),
        "token_energy_joules": token_energy_joules(group),
    }


def table(groups: Sequence[Group], peaks: Peaks, *, title: str, caption: str, empty: str, wide: bool = False) -> Table:
    """Return a table with a row for each point.

    Args:
        groups: the points.
        peaks: the peaks that utilisation refers to.
        title: its heading.
        caption: what it shows.
        empty: what to say where there is no point.
        wide: whether mean, standard deviation and CV stand below the medians.
    """
    rows = [row(group, peaks) for group in groups]
    axes = list(groups[0].point) if groups else []
    unit = col.time_unit(rows, TIMES)
    columns = [
        col.size() if wide else col.word("size"),
        *col.axis_columns(rows, [axis for axis in axes if axis != "size"]),
        *((_two_lines if wide else col.median)(phase, unit) for phase in PHASES),
        (_two_lines if wide else col.interval)(WHOLE, unit, "whole step"),
        col.value("backward_forward_ratio", "backward / forward", units.ratio, secondary=True),
        *_rate_columns(rows),
        col.WARNINGS,
        col.STATUS,
    ]
    read = " ".join([READING_WIDE if wide else READING, caption, *([ENERGY] if counted(rows) else [])])
    return Table(title, read, rows, columns, empty, axes)


def counted(rows: Sequence[Row]) -> bool:
    """Return whether a row tells the energy of a step."""
    return any(row["energy_joules"] is not None for row in rows)


def utilisation(group: Group, peaks: Peaks) -> tuple[float | None, float | None]:
    """Return MFU of the measured peak and of the vendor's, for the dtype that the cell computes in."""
    whole, work = group.summary(f"{WHOLE}_s"), flops(group)
    if whole is None or not whole.median or work is None:
        return None, None
    dtype = group.point.get("precision", "fp32")
    measured, vendor = peaks.flops_per_s(dtype), peaks.vendor_flops_per_s.get(dtype)
    rate = work / whole.median
    return rate / measured if measured else None, rate / vendor if vendor else None


def warnings(group: Group) -> list[Mark]:
    """Return the warnings of a point's phases and its whole step, and those of the point itself."""
    found = []
    for name in TIMES:
        summary = group.summary(f"{name}_s")
        own = [mark for mark in summary.marks if mark not in group.marks] if summary else []
        found += marks.about(name, own)
    return [*found, *group.marks]


def _two_lines(name: str, unit: Unit, heading: str | None = None) -> col.Column:
    def text(row: Row) -> str:
        if row[f"{name}_median_s"] is None:
            return units.NOTHING
        cv = row[f"{name}_cv_ratio"]
        below = units.plus_minus(row[f"{name}_mean_s"], row[f"{name}_std_s"], per=unit.size)
        return (
            f"{col.middle(name, unit, row)}{markup.BREAK}{below}{f' ({units.percent(cv)})' if cv is not None else ''}"
        )

    return col.Column(heading or name, text, unit.name)


def _rate_columns(rows: Sequence[Row]) -> list[col.Column]:
    """Return columns for tokens/s, MFU of both peaks, and peak memory of the device or else of the host."""
    device = any(row["peak_memory_bytes"] is not None for row in rows)
    vendor = any(row["mfu_vendor_ratio"] is not None for row in rows)
    peaks = ("measured", "vendor") if vendor else ("measured",)
    heading = f"MFU of measured peak{markup.BREAK}of vendor's peak" if vendor else "MFU of measured peak"
    memory = ("peak_memory_bytes", "peak memory") if device else ("peak_host_bytes", "peak host memory")
    return [
        col.value("tokens_per_s", "tokens/s", units.number),
        col.Column(heading, lambda row: markup.BREAK.join(units.percent(row[f"mfu_{peak}_ratio"]) for peak in peaks)),
        col.value(*memory, units.byte_count),
        col.value("energy_joules", "energy of a step", units.joules, droppable=True),
        col.value("token_energy_joules", "of a token", units.joules, droppable=True),
    ]


def _over(above: Summary | None, below: Summary | None) -> float | None:
    return above.median / below.median if above and below and below.median else None
