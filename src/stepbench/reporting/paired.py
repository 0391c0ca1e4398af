"""A strategy's step and that of torch's own implementation, timed in turn in the same processes."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepbench.reporting import columns as col
from stepbench.reporting import units
from stepbench.reporting.columns import where
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, plural, said
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group
from stepbench.reporting.statistics import INTERVAL_LEVEL, Summary
from stepbench.reporting.tables import Table


@dataclass(frozen=True)
class Target:
    """What this project asks of a strategy of its own.

    Attributes:
        other: torch's strategy that it is compared with.
        time_ratio: the step's time over the other's must not exceed it.
        memory_ratio: the same of peak memory; None where there is no such target.
    """

    other: str
    time_ratio: float
    memory_ratio: float | None = None


Targets = Mapping[str, Target]  # by strategy
NAMING = ("strategy", "variant")


def beside(results: Results, targets: Targets) -> Table:
    """Return one row for each cell that was timed in turn with torch's own: both times, their ratio, the target."""
    rows = [_row(group, results, targets) for group in _paired(results, targets)]
    axes = col.rest(results.axes, *NAMING)
    unit = col.time_unit(rows, ("paired", "beside"))
    columns = [
        *col.axis_columns(rows, axes),
        col.value("name", "ours", col.axis_text, numeric=False),
        col.interval("paired", unit, "its step"),
        col.value("other", "torch's own", col.axis_text, numeric=False),
        col.interval("beside", unit, "its step"),
        col.ratio("time", "ours over torch's"),
        col.value("time_target_ratio", "target: at most", units.ratio),
        col.value("verdict", "target", numeric=False),
        col.Column("peak memory, ours over torch's", _memory_text, droppable=True),
        col.WARNINGS,
        col.STATUS,
    ]
    caption = (
        "The steps of both were timed in turn in the same ranks, so that other load affects both alike. The ratio is "
        f"the median over pairs of steps with its {100 * INTERVAL_LEVEL:.0f} % interval; below 1 ours is faster. The "
        "target is this project's own."
    )
    return Table("Compared with torch's own", caption, rows, columns, "The grid has no cell that is compared.", axes)


def find(results: Results, targets: Targets) -> list[Finding]:
    """Say for each comparison with torch's own whether the target is met."""
    groups = _paired(results, targets)
    found = []
    for group in groups:
        row = _row(group, results, targets)
        if row["time_ratio"] is None:
            continue
        place = where(group, groups) if len(groups) > 1 else ""
        at = f" ({place})" if place else ""
        time = units.ratio(row["time_ratio"], row["time_low_ratio"], row["time_high_ratio"])
        other = col.axis_words(row["other"])
        reason = " (the interval contains the target)" if row["verdict"] == INCONCLUSIVE else ""
        text = (
            f"A step of {col.axis_words(row['name'])} takes {time} the time of {other}{at}; "
            f"target ≤ {units.ratio(row['time_target_ratio'])}: {row['verdict']}{reason}, in "
            f"{'one process' if row['processes'] == 1 else plural(row['processes'], 'process', 'es')}."
        )
        found += said("target", [text], Evidence.of([group], _in_turn))
        if row["memory_ratio"] is not None:
            text = (
                f"The peak memory of {col.axis_words(row['name'])} is {units.ratio(row['memory_ratio'])} that of "
                f"{other}{at}; target ≤ {units.ratio(row['memory_target_ratio'])}: {_memory_verdict(row)}."
            )
            found += said("target", [text], Evidence.of([group, *_other_cell(group, results, targets[_name(group)])]))
    return found


def _paired(results: Results, targets: Targets) -> list[Group]:
    return [group for group in results.groups() if _name(group) in targets and group.point.get("source") != "predicted"]


def _name(group: Group) -> str:
    return str(next(group.point[axis] for axis in NAMING if axis in group.point))


def _row(group: Group, results: Results, targets: Targets) -> dict[str, Any]:
    target = targets[_name(group)]
    found = _in_turn(group)
    return {
        **col.facts(group, found.marks if found else ()),
        "name": _name(group),
        "other": target.other,
        **col.statistics_of("paired", group.summary("paired_s")),
        **col.statistics_of("beside", group.summary("beside_s")),
        "time_ratio": found.median if found else None,
        "time_low_ratio": found.low if found else None,
        "time_high_ratio": found.high if found else None,
        "time_target_ratio": target.time_ratio,
        "processes": found.processes if found else 0,
        "verdict": _verdict(found, target.time_ratio),
        "memory_ratio": _memory(group, results, target),
        "memory_target_ratio": target.memory_ratio,
    }


def _in_turn(group: Group) -> Summary | None:
    """Return the ratio of the two steps that were timed in turn, pair by pair."""
    return group.stepwise(operator.truediv, "paired_s", "beside_s")


MET, NOT_MET, INCONCLUSIVE = "met", "not met", "inconclusive"


def _verdict(found: Summary | None, target: float) -> str:
    """Return whether a ratio meets its target, as far as its interval allows."""
    if found is None:
        return units.NOTHING
    low, high = (found.median if bound is None else bound for bound in (found.low, found.high))
    if high <= target:
        return MET
    return NOT_MET if low > target else INCONCLUSIVE


def _memory(group: Group, results: Results, target: Target) -> float | None:
    """Return the peak memory over that of the other's own cell, where the grid has one."""
    others = [each.scalar("peak_memory_bytes") for each in _other_cell(group, results, target)]
    mine = group.scalar("peak_memory_bytes")
    return mine / others[0] if target.memory_ratio is not None and mine and others and others[0] else None


def _other_cell(group: Group, results: Results, target: Target) -> list[Group]:
    """Return the other's own cell, where the grid has one."""
    axis = next(axis for axis in NAMING if axis in group.point)
    found = results.group(**group.point | {axis: target.other})
    return [found] if found else []


def _memory_verdict(row: Mapping[str, Any]) -> str:
    return MET if row["memory_ratio"] <= row["memory_target_ratio"] else NOT_MET


def _memory_text(row: Mapping[str, Any]) -> str:
    if row["memory_ratio"] is None:
        return ""
    target = units.ratio(row["memory_target_ratio"])
    return f"{units.ratio(row['memory_ratio'])}, target ≤ {target}: {_memory_verdict(row)}"
