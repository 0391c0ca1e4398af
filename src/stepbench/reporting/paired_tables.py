"""A strategy's step beside that of torch's own, measured in turn in the same processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepbench.reporting import by_rank, units
from stepbench.reporting.findings import where
from stepbench.reporting.frames import Group, Results
from stepbench.reporting.statistics import INTERVAL_LEVEL, Summary
from stepbench.reporting.steps import one_line, statistics_of, time_unit
from stepbench.reporting.tables import (
    MARKS,
    STATUS,
    Column,
    Table,
    axis_columns,
    axis_text,
    facts,
    frame,
    held_constant,
    value,
)


@dataclass(frozen=True)
class Bar:
    """What this project asks of a strategy of its own.

    Attributes:
        other: torch's strategy that it is held against.
        time_ratio: what the step's time over the other's must not be above.
        memory_ratio: the same of the peak of memory; None where it is not asked for.
    """

    other: str
    time_ratio: float
    memory_ratio: float | None = None


Bars = Mapping[str, Bar]
NAMING = ("strategy", "variant")


def beside(results: Results, bars: Bars) -> Table:
    """Return one row for each cell that was timed in turn with torch's own: both times, their ratio, the bar.

    Args:
        results: the experiment's results.
        bars: strategy -> what is asked of it.
    """
    rows = [_row(group, results, bars) for group in _paired(results, bars)]
    axes = [axis for axis in results.axes if axis not in (*NAMING, "replicate")]
    unit = time_unit(rows, ("paired", "beside"))
    columns = [
        *axis_columns(rows, axes),
        value("name", "ours", axis_text, numeric=False),
        one_line("paired", unit, "its step"),
        value("other", "torch's own", axis_text, numeric=False),
        one_line("beside", unit, "its step"),
        Column("ours over torch's", lambda row: units.ratio(*(row[f"{part}ratio"] for part in ("", "low_", "high_")))),
        Column("at most", lambda row: units.ratio(row["bar_ratio"])),
        value("verdict", "the bar", numeric=False),
        Column("peak of memory, ours over torch's", _memory_text, droppable=True),
        MARKS,
        STATUS,
    ]
    told = (
        "Steps of both were timed in turn in the same ranks, so that what disturbs one disturbs the other; the ratio "
        f"is the median over pairs, in brackets its {100 * INTERVAL_LEVEL:.0f} % interval. Below 1 ours is faster. The "
        f"bar is what this project asks of itself. {held_constant(rows, axes)}"
    ).strip()
    return Table("beside", "Beside torch's own", told, frame(rows), columns, "The grid has no cell that is compared.")


def find(results: Results, bars: Bars) -> list[str]:
    """Say for each comparison with torch's own whether the bar is met."""
    groups = _paired(results, bars)
    sentences = []
    for group in groups:
        row = _row(group, results, bars)
        if row["ratio"] is None:
            continue
        place = f" ({where(group, groups)})" if len(groups) > 1 else ""
        ratio = units.ratio(row["ratio"], row["low_ratio"], row["high_ratio"])
        other = axis_text(row["other"])
        sentences.append(
            f"A step of {axis_text(row['name'])} takes {ratio} the time of {other}{place}, where at most "
            f"{units.ratio(row['bar_ratio'])} is asked: {row['verdict']}."
        )
        if row["memory_ratio"] is not None:
            sentences.append(
                f"Its peak of memory is {units.ratio(row['memory_ratio'])} that of {other}{place}, where at most "
                f"{units.ratio(row['memory_bar_ratio'])} is asked: {_memory_verdict(row)}."
            )
    return sentences


def _paired(results: Results, bars: Bars) -> list[Group]:
    return [group for group in results.groups() if _name(group) in bars and group.point.get("source") != "predicted"]


def _name(group: Group) -> str:
    return str(next(group.point[axis] for axis in NAMING if axis in group.point))


def _row(group: Group, results: Results, bars: Bars) -> dict[str, Any]:
    bar = bars[_name(group)]
    ratio = by_rank.ratios(group, "paired_s", "beside_s")
    return {
        **facts(group, ratio.marks if ratio else ()),
        "name": _name(group),
        "other": bar.other,
        **statistics_of("paired", group.summary("paired_s")),
        **statistics_of("beside", group.summary("beside_s")),
        "ratio": ratio.median if ratio else None,
        "low_ratio": ratio.low if ratio else None,
        "high_ratio": ratio.high if ratio else None,
        "bar_ratio": bar.time_ratio,
        "verdict": _verdict(ratio, bar.time_ratio),
        "memory_ratio": _memory(group, results, bar),
        "memory_bar_ratio": bar.memory_ratio,
    }


def _verdict(ratio: Summary | None, bar: float) -> str:
    """Say whether a ratio is within the bar, as far as its interval allows."""
    if ratio is None:
        return units.NOTHING
    low, high = (ratio.median if bound is None else bound for bound in (ratio.low, ratio.high))
    if high <= bar:
        return "met"
    return "not met" if low > bar else "unclear, the bar is inside the interval"


def _memory(group: Group, results: Results, bar: Bar) -> float | None:
    """Return the peak of memory over that of the other's own cell, where the grid has one."""
    axis = next(axis for axis in NAMING if axis in group.point)
    point = group.point | {axis: bar.other}
    other = next((each for each in results.groups() if each.point == point), None)
    mine, others = (each.scalar("peak_memory_bytes") if each else None for each in (group, other))
    return mine / others if bar.memory_ratio is not None and mine and others else None


def _memory_verdict(row: Mapping[str, Any]) -> str:
    return "met" if row["memory_ratio"] <= row["memory_bar_ratio"] else "not met"


def _memory_text(row: Mapping[str, Any]) -> str:
    if row["memory_ratio"] is None:
        return ""
    return f"{units.ratio(row['memory_ratio'])}, at most {units.ratio(row['memory_bar_ratio'])}: {_memory_verdict(row)}"
