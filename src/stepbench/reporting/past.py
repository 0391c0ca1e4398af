"""The history of one cell as a table: each measurement, under what it was made, and what made it stale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepbench.pipeline import fingerprint
from stepbench.pipeline.history import Entry
from stepbench.pipeline.records import Record
from stepbench.pipeline.state import State
from stepbench.reporting import columns as col
from stepbench.reporting import conditions, main_time, marks, markup, statistics, units
from stepbench.reporting.tables import Table

BYTES = ("peak_memory_bytes", "peak_host_bytes", "predicted_peak_bytes")  # ends of what a cell without times has
MAX_CAUSES = 4


def table(path: Path, entries: Sequence[Entry], state: State) -> Table:
    """Return one row for each measurement of a cell, the earliest first; the last one stands in the cell's file.

    Args:
        path: the cell's record.
        entries: its history, the earliest first.
        state: of the cell's record now.
    """
    standing = [] if state.record is None or not state.record.ok else [(path, state.record)]
    found = [*((entry.path, entry.record) for entry in entries), *standing]
    rows = [
        _row(file, record, _ended(record, [later for _, later in found[position + 1 :]], state))
        for position, (file, record) in enumerate(found)
    ]
    columns = [
        col.value("started", "measured", markup.escape, numeric=False),
        col.word("commit"),
        col.word("torch"),
        col.value("driver", text=lambda found: markup.escape(found or ""), numeric=False, droppable=True),
        col.value("shown", "time [95 % interval]", markup.escape),
        col.WARNINGS,
        col.value("ended", "then", markup.escape, numeric=False),
    ]
    caption = "An interval covers the samples of one process and says nothing about another."
    return Table("History", caption, rows, columns, "Nothing has been measured yet.")


def causes(differences: Sequence[fingerprint.Difference]) -> str:
    """Return what differs between two fingerprints, in few words."""
    texts = list(map(str, differences))
    more = len(texts) - MAX_CAUSES
    return "; ".join([*texts[:MAX_CAUSES], *([f"{more} more"] if more > 0 else [])])


def commit(environment: Mapping[str, Any]) -> str | None:
    """Return the commit that a record was measured at, shortened, with a plus where there were other changes."""
    found = environment.get("git_commit")
    return None if found is None else f"{str(found)[:10]}{'+' if environment.get('git_dirty') else ''}"


def _row(file: Path, record: Record, ended: str) -> dict[str, Any]:
    times = main_time.samples(record)
    summary = statistics.summarize([times]) if times else None
    found = (*(summary.marks if summary else ()), *conditions.find([record]))
    return {
        "started": record.started[:19].replace("T", " "),
        "commit": commit(record.environment),
        **{name: record.environment.get(name) for name in ("torch", "triton", "driver")},
        "time": main_time.label(record),
        **{key: getattr(summary, part) if summary else None for key, part in _PARTS.items()},
        "shown": _shown(record, summary),
        "ended": ended,
        **col.warned(marks.about("", found)),
        "path": str(file),
    }


_PARTS = {"time_s": "median", "time_low_s": "low", "time_high_s": "high"}


def _shown(record: Record, summary: statistics.Summary | None) -> str:
    if summary is not None:
        unit = units.pick(units.SECONDS, [summary.median])
        return f"{units.middle(summary.median, summary.low, summary.high, per=unit.size)} {unit.name}"
    found = [value for name, value in record.scalars.items() if name.endswith(BYTES) and value]
    return units.byte_count(found[0]) if found else units.NOTHING


def _ended(record: Record, later: Sequence[Record], state: State) -> str:
    """Return the state of a measurement: what made it stale, or that it is still valid."""
    if not later and record is not state.record:
        return "no number since"
    if not later:
        return "stands" if state.kind == "fresh" else f"stands, stale: {causes(state.differences)}"
    differences = fingerprint.difference(record.fingerprint, later[0].fingerprint)
    if differences:
        return causes(differences)
    return "not kept" if record.started > later[0].started else "measured again"
