"""What `stepbench measure` shows of one cell: its samples beside those of the record before, and its own table."""

from __future__ import annotations

from typing import Any

from stepbench.pipeline.records import Record
from stepbench.reporting import columns as col
from stepbench.reporting import marks, markup, tables, units
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group, Row, processes
from stepbench.reporting.statistics import Summary, summarize
from stepbench.reporting.tables import Shown, Table

SECONDS = "_s"
SYSTEM = "_system_s"  # of a region's time what the kernel took; the warning `paging` speaks of it
PEAKS = ("peak_memory_bytes", "peak_host_bytes", "predicted_peak_bytes")  # ends of the scalars that are shown


def samples(group: Group, before: Record | None) -> Table:
    """Return a row for each kind of timed samples of a cell and for each of its peaks in bytes.

    A cell without any, such as one that only adds, has a row with its whole duration.

    Args:
        group: the cell alone.
        before: the record that it replaces.
    """
    (record,) = group.records
    timed = [name for name, found in record.samples.items() if name.endswith(SECONDS) and found]
    rows = [_times(group, name, before) for name in timed if not name.endswith(SYSTEM)]
    rows += [_peak(group, name, before) for name, found in record.scalars.items() if name.endswith(PEAKS) and found]
    if not rows:
        previous = before.duration_s if before and before.ok else None
        shown = f"{units.seconds(record.duration_s)} (one sample)"
        rows.append(_row("whole cell", shown, 1, (record.duration_s, previous), group.marks))
        rows[0]["before"] = units.seconds(previous) if previous else ""
    columns = [
        col.value("samples", text=markup.escape, numeric=False),
        col.value("n"),
        col.value("shown", "median [95 % interval]", text=markup.escape),
        col.value("cv_ratio", "CV", units.percent),
        col.value("before", droppable=True),
        col.Column("now over before", _now_over_before, droppable=True),
        col.Column("quality: warnings", lambda row: _quality(row, group), numeric=False),
    ]
    told = "One process: an interval covers its own samples and says nothing about another process."
    if before and before.ok:
        told += f" Before: the record of {before.started}; one process each: no verdict."
    if group.marks:
        told += f" Of all times: {marks.text(group.marks)}."
    return Table(f"{record.experiment} in {units.seconds(record.duration_s)}", told, rows, columns)


def own(experiment: Any, results: Results) -> Shown | None:
    """Return the first of an experiment's tables that shows the cell, or None where only several cells make a row."""
    for table in experiment.tabulate(results).values():
        if table.rows:
            return tables.show(table, whole=True)
    return None


def _times(group: Group, name: str, before: Record | None) -> dict[str, Any]:
    (record,) = group.records
    summary = group.summary(name)
    assert summary is not None  # noqa: S101 - the caller has looked
    values = record.samples[name]
    ranks = f" (slowest of {len(values)} ranks)" if isinstance(values[0], list) and len(values) > 1 else ""
    earlier = processes([before], name) if before and before.ok else []
    previous = summarize(earlier).median if earlier else None
    label = name.removesuffix(SECONDS) + ranks
    row = _row(label, _with_interval(summary), summary.samples, (summary.median, previous), summary.marks)
    return row | {"cv_ratio": summary.cv_ratio, "before": units.seconds(previous) if previous else ""}


def _peak(group: Group, name: str, before: Record | None) -> dict[str, Any]:
    (record,) = group.records
    value = record.scalars[name]
    previous = before.scalars.get(name) if before and before.ok else None
    is_predicted = name.startswith("predicted") or group.point.get("source") == "predicted"
    shown = f"{units.byte_count(value)} ({'predicted' if is_predicted else 'one sample'})"
    found = marks.fatal(group.marks)  # load and clocks change no bytes
    row = _row(name.removesuffix("_bytes"), shown, 0 if is_predicted else 1, (value, previous), found)
    return row | {"before": units.byte_count(previous) if previous else ""}


def _row(label: str, shown: str, count: int, now_and_before: tuple[float, float | None], found: Any) -> dict[str, Any]:
    now, before = now_and_before
    return {
        "samples": label.replace("_", " "),
        "n": count,
        "shown": shown,
        "cv_ratio": None,
        "before": "",
        "now_over_before_ratio": now / before if before else None,
        **col.warned(found),
    }


def _with_interval(summary: Summary) -> str:
    if summary.low is None or summary.high is None:
        none = "one sample" if summary.samples == 1 else "too few samples for an interval"
        return f"{units.seconds(summary.median)} ({none})"
    unit = units.pick(units.SECONDS, [summary.median])
    return f"{units.middle(summary.median, summary.low, summary.high, per=unit.size)} {unit.name}"


def _now_over_before(row: Row) -> str:
    found = row["now_over_before_ratio"]
    return units.ratio(found) if found else ""


def _quality(row: Row, group: Group) -> str:
    """Return the quality, which all warnings give, and the warnings that are about these samples alone."""
    found = [mark for mark in row[col.MARKS_OF_ROW] if mark not in group.marks]
    return f"{row['quality']}: {markup.escape(marks.text(found))}" if found else row["quality"]
