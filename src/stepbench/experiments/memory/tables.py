"""The tables of memory: peaks predicted and measured, and each phase."""

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
from stepbench.reporting import marks, units
from stepbench.reporting.columns import RECORDS, STATUS, WARNINGS, Column, axis_columns, size, value, warned, word
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Row
from stepbench.reporting.tables import Table

NEXT_TO_NOTHING = 1e-4  # of a peak
CATEGORIES_TOLD = (
    "Activations are what the forward pass allocates and the backward pass still needs; temporary is everything that "
    "is neither these nor parameters, gradients or optimizer state. The step is one after the first: its forward pass "
    "runs beside the last step's gradients and the optimizer state."
)


def peaks(results: Results) -> Table:
    """Return one row for each shape: its peak as predicted and as measured, and the peak by category."""
    found = shapes(results)
    rows = [_peak_row(shape) for shape in found]
    axes = list(found[0].point) if found else []
    columns = [
        *_names(rows, axes),
        value("predicted_bytes", "predicted peak", units.byte_count),
        value("measured_bytes", "measured peak", units.byte_count),
        value("difference_ratio", "predicted − measured", units.difference),
        word("peak_in", "reached in"),
        *(_category_column(category) for category in CATEGORIES),
        WARNINGS,
        STATUS,
    ]
    caption = (
        "The peak of a whole step by category (as measured where there is a measurement). Predicted: allocations of "
        f"the step's own code on fake tensors; measured: those of the device's allocator. {CATEGORIES_TOLD}"
    )
    return Table("Peak memory: predicted and measured", caption, rows, columns, held=axes)


def phases(results: Results) -> Table:
    """Return one row for each phase of each shape that has numbers: its peak by category."""
    found = [shape for shape in shapes(results) if shape.best]
    rows = [row for shape in found for row in _phase_rows(shape)]
    axes = list(found[0].point) if found else []
    columns = [
        *_names(rows, axes),
        word("source"),
        word("phase"),
        value("peak_bytes", "peak", units.byte_count),
        *(_category_column(category) for category in CATEGORIES),
    ]
    caption = f"The peak of each phase. {CATEGORIES_TOLD}"
    return Table("Memory in each phase", caption, rows, columns, "No shape has numbers.", axes)


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
        **warned(
            mark for source, group in shape.sources.items() for mark in marks.about(source, marks.fatal(group.marks))
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
    others = [axis for axis in axes if axis != "size"]
    return [size(), *axis_columns(rows, others)]


def _category_column(category: str) -> Column:
    def text(row: Mapping[str, Any]) -> str:
        size_bytes, total = row[f"{category}_bytes"], sum(row[f"{each}_bytes"] or 0 for each in CATEGORIES)
        if size_bytes is not None and size_bytes < NEXT_TO_NOTHING * total:
            return "≈ 0"  # such as a loss of four bytes in a gigabyte
        return units.byte_count(size_bytes)

    return Column(WORDS[category], text)
