"""Two cells that were measured in turn, compared by each time that both have."""

from __future__ import annotations

from typing import Any

from stepbench.reporting import columns as col
from stepbench.reporting import main_time, marks, sense
from stepbench.reporting.comparisons import READING
from stepbench.reporting.points import Group, Row, compared
from stepbench.reporting.statistics import MIN_PROCESSES
from stepbench.reporting.tables import Table

SIDES = ("a", "b")


def table(first: Group, second: Group) -> Table:
    """Return a row for each time of both cells: the two, their ratio, and the verdict.

    Args:
        first: `a`, the baseline, one record for each process.
        second: `b`, which is compared with it.
    """
    groups = dict(zip(SIDES, (first, second), strict=True))
    there = [{key for record in group.records for key in record.samples} for group in groups.values()]
    kinds = first.records[0].samples if first.records else ()
    timed = [key for key in kinds if sense.TIMED.fullmatch(key) or key in main_time.WHOLE]
    rows = [_row(groups, key) for key in timed if all(key in keys for keys in there)]
    unit = col.time_unit(rows, SIDES)
    columns = [
        col.value("time", numeric=False),
        *(col.interval(side, unit) for side in SIDES),
        col.ratio("speedup", "speed of b over a"),
        col.value("verdict", numeric=False),
        col.value("processes"),
        col.WARNINGS,
    ]
    told = "; ".join(f"{side}: {_named(group, first, second)}" for side, group in groups.items())
    caption = f"{told}. {READING}" if told else READING
    return Table("Measured in turn", caption, rows, columns, "The two cells have no time in common.")


def _row(groups: dict[str, Group], key: str) -> Row:
    summaries = {side: group.summary(key) for side, group in groups.items()}
    comparison = compared(groups["a"], groups["b"], key)
    assert comparison is not None  # noqa: S101 - both have the samples
    fewest = min(comparison.processes)
    found: dict[str, Any] = {"time": key.removesuffix("_s").replace("_", " ")}
    for side, summary in summaries.items():
        found |= col.statistics_of(side, summary)
    return {
        **found,
        **col.ratio_of("speedup", comparison),
        "p_value": comparison.p_value,
        "visible_ratio": comparison.visible_ratio,
        "verdict": verdict(fewest, comparison.verdict.value),
        "processes": f"{comparison.processes[0]} / {comparison.processes[1]}",
        **col.warned(m for side, each in summaries.items() if each for m in marks.about(side, each.marks)),
        col.RECORDS: {side: group.paths for side, group in groups.items()},
    }


def verdict(processes: int, found: str) -> str:
    """Return the verdict of a comparison in words, with how many processes are too few for one."""
    if processes == 1:
        return "one process each: no verdict"
    return found if processes >= MIN_PROCESSES else f"{processes} processes each: no verdict below five"


def _named(group: Group, *shown: Group) -> str:
    return ", ".join(
        f"{col.axis_words(axis)} {col.axis_words(group.point[axis])}"
        for axis in col.varying([each.point for each in shown], group.point)
    )
