"""The tables of the machine's peaks: the fastest of each operation and dtype, and the rate at each size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stepbench.reporting import markup, units
from stepbench.reporting import peaks as peaks_module
from stepbench.reporting.columns import STATUS, WARNINGS, Column, facts, value, word
from stepbench.reporting.frames import Results
from stepbench.reporting.peaks import Peaks, Rate
from stepbench.reporting.points import Group, Row
from stepbench.reporting.tables import Table

OPERATIONS = {"matmul": "matrix product", "copy": "copy"}


def peaks(results: Results) -> Table:
    """Return one row for each operation and dtype, the fastest size (of copies the largest) beside the vendor's."""
    rows = []
    for group in results.groups():
        found = peaks_module.rates(group.records)
        best = _best(found)
        vendor = _vendor(group, results.peaks)
        values = _values(best) | {"vendor_per_s": vendor}
        values["vendor_ratio"] = best.per_s / vendor if best and vendor else None
        values["at_highest_clock_per_s"] = results.peaks.flops_per_s_at_highest_clock.get(
            group.point["dtype"] if group.point["operation"] == "matmul" else ""
        )
        rows.append(facts(group, best.seconds.marks if best else ()) | values)
    columns = [
        *_names(),
        Column("size", _extent),
        Column("rate", _rate),
        Column("vendor's peak", lambda row: _unit(row)(row["vendor_per_s"])),
        value("vendor_ratio", "of vendor's peak", units.percent),
        Column("at its highest clock", _at_highest_clock, droppable=True),
        WARNINGS,
        STATUS,
    ]
    source = results.peaks.vendor_source
    told = f"The vendor's figures: {source}." if source else "The vendor's figures for this device are unknown."
    caption = f"The fastest size of each matrix product; the largest copy, because no cache holds it. {told}"
    if results.peaks.flops_per_s_at_highest_clock and results.peaks.highest_clock_hz:
        clock = f"{results.peaks.highest_clock_hz / 1e6:.0f} MHz"
        caption += f" At its highest clock: what the vendor's peak becomes at {clock}, the most that the driver allows."
    return Table("Peaks", caption, rows, columns)


def rates(results: Results) -> Table:
    """Return one row for each operation, dtype and size."""
    rows = []
    for group in results.groups():
        found = peaks_module.rates(group.records)
        rows += [facts(group, rate.seconds.marks) | _values(rate) for rate in found] or [facts(group) | _values(None)]
    columns = [
        *_names(),
        Column("size", _extent),
        value("median_s", "time of one", units.seconds),
        Column("rate", _rate),
        WARNINGS,
        STATUS,
    ]
    caption = "A product of two n × n matrices is 2n³ FLOPs; a copy of n bytes moves 2n, one read and one write."
    return Table("Rate at each size", caption, rows, columns)


def _best(found: Sequence[Rate]) -> Rate | None:
    copies = [rate for rate in found if rate.operation == "copy"]
    if copies:
        return max(copies, key=lambda rate: rate.extent)
    return max(found, key=lambda rate: rate.per_s, default=None)


def _values(rate: Rate | None) -> dict[str, Any]:
    return {
        "extent": rate.extent if rate else None,
        "median_s": rate.seconds.median if rate else None,
        "work": rate.work if rate else None,
        "per_s": rate.per_s if rate else None,
        "low_per_s": rate.low if rate else None,
        "high_per_s": rate.high if rate else None,
    }


def _vendor(group: Group, peaks: Peaks) -> float | None:
    if group.point["operation"] == "copy":
        return peaks.vendor_bytes_per_s
    return peaks.vendor_flops_per_s.get(group.point["dtype"])


def _at_highest_clock(row: Row) -> str:
    found = row["at_highest_clock_per_s"]
    return "" if found is None else _unit(row)(found)


def _names() -> list[Column]:
    words = value("operation", text=lambda found: OPERATIONS.get(found, markup.escape(found)), numeric=False)
    return [words, word("dtype")]


def _extent(row: Row) -> str:
    if row["extent"] is None:
        return units.NOTHING
    return f"{row['extent']} MiB" if row["operation"] == "copy" else f"n = {row['extent']}"


def _unit(row: Row) -> Callable[[float | None], str]:
    return units.byte_rate if row["operation"] == "copy" else units.flop_rate


def _rate(row: Row) -> str:
    family = units.BYTES_PER_SECOND if row["operation"] == "copy" else units.FLOPS_PER_SECOND
    if row["per_s"] is None:
        return units.NOTHING
    unit = units.pick(family, [row["per_s"]])
    return f"{units.middle(row['per_s'], row['low_per_s'], row['high_per_s'], per=unit.size)} {unit.name}"
