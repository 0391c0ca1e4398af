"""The warnings about one record, whether it is in its cell's file or not."""

from __future__ import annotations

import dataclasses

from stepbench.pipeline.records import Record
from stepbench.reporting import frames, main_time
from stepbench.reporting.frames import Results
from stepbench.reporting.marks import Mark
from stepbench.reporting.points import is_ok


def by_path(results: Results) -> dict[str, tuple[Mark, ...]]:
    """Return the warnings about each fresh record with numbers, by its path."""
    ok = [row for row in results.rows if is_ok(row)]
    return {row["path"]: warnings(dataclasses.replace(results, rows=[row]), row["record"]) for row in ok}


def warnings(results: Results, record: Record) -> tuple[Mark, ...]:
    """Return the warnings about a record: about the whole cell, and about the time that it is compared by.

    Args:
        results: those of its cell alone, whose machine's peaks count.
        record: what was measured of it.
    """
    (group,) = frames.with_record(results, record).groups()
    summaries = [group.summary(key) for key in main_time.keys(record)]
    found = [mark for summary in summaries if summary is not None for mark in summary.marks]
    return tuple(dict.fromkeys([*found, *group.marks]))
