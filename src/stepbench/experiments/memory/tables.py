"""The tables of the memory experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepbench.experiments.memory.shapes import (
    MEASURED,
    PREDICTED,
    SOURCES,
    WORDS,
    Shape,
    by_category,
    peak_phase,
    phases_of,
    shapes,
)
from stepbench.measure.memory_timeline import CATEGORIES
from stepbench.reporting import markup, units
from stepbench.reporting.frames import Results
from stepbench.reporting.marks import fatal
from stepbench.reporting.tables import (
    MARKS,
    RECORDS,
    STATUS,
    Column,
    Row,
    Table,
    axis_columns,
    frame,
    held_constant,
    or_dash,
    value,
)

MINUS = "\N{MINUS SIGN}"
NEXT_TO_NOTHING = 1e-4  # of a peak
CATEGORIES_TOLD = (
    "Activations were allocated in the forward pass and are still there at its end; temporary is all that is neither "
    "these nor parameters, gradients or optimizer state. The step is one after the first: in its forward pass the last "
    "step's gradients and the optimizer's state exist."
)


def peaks(results: Results) -> Table:
    """Return one row for each shape: its peak as predicted and as measured, and what the peak is made of."""
    found = shapes(results)
    rows = [_peak_row(shape) for shape in found]
    axes = list(found[0].point) if found else []
    columns = [
        *_names(rows, axes),
        Column("predicted peak", lambda row: units.byte_count(row["predicted_bytes"])),
        Column("measured peak", lambda row: units.byte_count(row["measured_bytes"])),
        Column("predicted against measured", lambda row: units.difference(row["difference_ratio"])),
        value("peak_in", "reached in", or_dash, numeric=False),
        *(_category_column(category) for category in CATEGORIES),
        MARKS,
        STATUS,
    ]
    told = " ".join(
        [
            "The peak of a whole step, and what it is made of (as measured where it was). Predicted is what the step's "
            "own code allocates on fake tensors; measured is what the device's allocator did.",
            CATEGORIES_TOLD,
            held_constant(rows, axes),
        ]
    ).strip()
    return Table("peaks", "Peak memory: predicted and measured", told, frame(rows), columns, "The grid has no shape.")


def phases(results: Results) -> Table:
    """Return one row for each phase of each shape that has numbers: its peak by category."""
    found = [shape for shape in shapes(results) if shape.best]
    rows = [row for shape in found for row in _phase_rows(shape)]
    axes = list(found[0].point) if found else []
    columns = [
        *_names(rows, axes),
        value("source", "", markup.escape, numeric=False),
        value("phase", text=markup.escape, numeric=False),
        Column("peak", lambda row: units.byte_count(row["peak_bytes"])),
        *(_category_column(category) for category in CATEGORIES),
    ]
    told = f"The highest moment of each phase. {CATEGORIES_TOLD} {held_constant(rows, axes)}".strip()
    empty = "No shape has numbers."
    return Table("phases", "Memory in each phase", told, frame(rows), columns, empty)


def _peak_row(shape: Shape) -> dict[str, Any]:
    best = shape.best
    parts = by_category(best[1], "peak") if best else None
    return {
        **shape.point,
        "parameters": best[1].scalar("parameters") if best else None,
        "predicted_bytes": shape.peak_bytes(PREDICTED),
        "measured_bytes": shape.peak_bytes(MEASURED),
        "difference_ratio": shape.difference_ratio,
        "peak_in": peak_phase(best[1]) if best else None,
        **{f"{category}_bytes": parts[category] if parts else None for category in CATEGORIES},
        **_status(shape),
        "marks": "; ".join(
            f"{source} {mark}" for source, group in shape.sources.items() for mark in fatal(group.marks)
        ),
        RECORDS: {source: shape.sources[source].paths for source in SOURCES if source in shape.sources},
    }


def _phase_rows(shape: Shape) -> list[dict[str, Any]]:
    assert shape.best is not None  # noqa: S101 - the caller has looked
    source, group = shape.best
    rows = []
    for phase in phases_of(group):
        parts = by_category(group, f"{phase}_peak") or dict.fromkeys(CATEGORIES)
        rows.append(
            {
                **shape.point,
                "parameters": group.scalar("parameters"),
                "source": source,
                "phase": phase,
                "peak_bytes": group.scalar(f"{phase}_peak_bytes"),
                **{f"{category}_bytes": parts[category] for category in CATEGORIES},
                RECORDS: {"": group.paths},
            }
        )
    return rows


def _status(shape: Shape) -> dict[str, str]:
    states = {source: group.status for source, group in shape.sources.items()}
    reasons = [f"{source}: {group.reason}" for source, group in shape.sources.items() if group.reason]
    alike = len(set(states.values())) == 1
    text = next(iter(states.values())) if alike else ", ".join(f"{source} {state}" for source, state in states.items())
    return {"status": text, "reason": "; ".join(reasons)}


def _names(rows: Sequence[Row], axes: Sequence[str]) -> list[Column]:
    def size(row: Row) -> str:
        count = f"{markup.BREAK}{units.count(row['parameters'])}" if row["parameters"] else ""
        return f"{markup.escape(row['size'])}{count}"

    others = [axis for axis in axes if axis != "size"]
    return [Column("size", size, numeric=False), *axis_columns(rows, others)]


def _category_column(category: str) -> Column:
    def text(row: Mapping[str, Any]) -> str:
        size_bytes, total = row[f"{category}_bytes"], sum(row[f"{each}_bytes"] or 0 for each in CATEGORIES)
        if size_bytes is not None and size_bytes < NEXT_TO_NOTHING * total:
            return "≈ 0"  # a loss of four bytes is no part of a gigabyte
        return units.byte_count(size_bytes)

    return Column(WORDS[category], text)
