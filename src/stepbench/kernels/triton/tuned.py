"""What a search for tile shapes keeps: medians of candidates, and rows of the table."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import triton

from stepbench.kernels.triton.candidates import Problem
from stepbench.kernels.triton.tiles import Tile, row_key, rows_for, slice_of, triton_series


@dataclass(frozen=True)
class Timing:
    """A candidate's median, and what was predicted; in seconds."""

    tile: Tile
    seconds: float
    predicted_s: float | None


def fastest(timings: Sequence[Timing], what: str) -> Timing:
    """Return the fastest.

    Raises:
        RuntimeError: there is none.
    """
    if not timings:
        raise RuntimeError(f"one tile must compute {what} correctly, got none")
    return min(timings, key=lambda timing: timing.seconds)


def row_of(problem: Problem, timings: dict[str, list[Timing]]) -> dict[str, Any]:
    """Return the row of the table for a problem; float32 rows are those of a slice's width.

    Args:
        problem: what was tuned for.
        timings: of each kernel, none where there is no such kernel.
    """
    best = {kernel: fastest(found, kernel) for kernel, found in timings.items() if found}
    return {
        **head_of(problem),
        "seconds": {kernel: timing.seconds for kernel, timing in best.items()},
        "predicted_s": {kernel: timing.predicted_s for kernel, timing in best.items()},
        "timed": {
            kernel: [[each.tile.shape, each.seconds, each.predicted_s] for each in found]
            for kernel, found in timings.items() if found
        },
        "problem": {name: asdict(problem)[name] for name in ("context", "tokens", "width")},
        **{kernel: best[kernel].tile.shape if kernel in best else None for kernel in timings},
    }  # fmt: skip


def head_of(problem: Problem) -> dict[str, Any]:
    """Return which row of the table is a problem's."""
    head_dim = slice_of(problem.head_dim) if problem.dtype == "float32" else problem.head_dim
    return {"head_dim": head_dim, "dtype": problem.dtype, "causal": problem.is_causal}


def merged(
    table: dict[str, Any], architecture: str, tuned: Sequence[dict[str, Any]], *, machine: str
) -> dict[str, Any]:
    """Return the table with new rows in the place of those that this Triton uses for the same problems.

    A row that names a version of Triton stays as it is for that version; one that names none is what other versions
    use, so the new row names the version it was measured with if the one that it replaces did. Tiles for grouped heads,
    which no search times, stay.
    """
    series = triton_series()
    rows = list(table[architecture]["rows"])
    for row in tuned:
        old = [each for each in rows if row_key(each) == row_key(row)]
        own = [each for each in old if each.get("triton") == series]
        replaced = own or [each for each in old if "triton" not in each]
        kept = next(({"grouped": each["grouped"]} for each in replaced if "grouped" in each), {})
        new = {**row, **kept, **({"triton": series} if own else {})}
        rows = [*(each for each in rows if each not in replaced), new]
    section = {
        **table[architecture],
        "origin": "rows with seconds: measured by stepbench tune, with these versions; others: as they were before",
        "machine": machine,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "rows": rows,
    }
    return {**table, architecture: section}


def is_measured(section: dict[str, Any], machine: str, problems: Sequence[Problem]) -> bool:
    """Return whether an architecture's part of the table has rows for these problems that were measured on it."""
    rows = {row_key(row): row for row in rows_for(section["rows"], triton_series())}
    keys = [row_key(head_of(problem)) for problem in problems]
    return section["machine"] == machine and all("seconds" in rows.get(key, {}) for key in keys)
