"""A point of an experiment's grid: its replicates' records, their status and their samples."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepbench.pipeline.records import Record
from stepbench.reporting import statistics
from stepbench.reporting.marks import Mark
from stepbench.reporting.statistics import Comparison, Summary

REPLICATE = "replicate"
MAX_REASONS = 1  # the list of cells without numbers has them all

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """The replicates of one point of the grid.

    Attributes:
        point: axis -> value, without `replicate`.
        rows: their rows of `Results.rows`.
        check: returns the warnings that hold for every number of the point.
    """

    point: dict[str, Any]
    rows: tuple[Row, ...]
    check: Callable[[Group], tuple[Mark, ...]] = lambda _: ()

    @functools.cached_property
    def marks(self) -> tuple[Mark, ...]:
        """The warnings about every number of this point; samples may have warnings of their own."""
        return self.check(self)

    @property
    def records(self) -> list[Record]:
        """The fresh records that hold numbers."""
        return [row["record"] for row in self.rows if is_ok(row)]

    @property
    def paths(self) -> list[str]:
        """The files of the cells that have one, whatever is in it."""
        return [row["path"] for row in self.rows if row["state"] != "missing"]

    @property
    def status(self) -> str:
        """What became of the cells, such as `ok`, `oom` or `4 ok, 1 stale`."""
        labels = [label(row) for row in self.rows]
        if len(set(labels)) == 1:
            return labels[0]
        return ", ".join(f"{labels.count(each)} {each}" for each in dict.fromkeys(labels))

    @property
    def reason(self) -> str:
        """Why there are no numbers, or fewer than there should be."""
        found = list(dict.fromkeys(reason for row in self.rows for reason in why(row)))
        more = f" and {len(found) - MAX_REASONS} more" if len(found) > MAX_REASONS else ""
        return "; ".join(found[:MAX_REASONS]) + more

    def processes(self, key: str) -> list[list[float]]:
        """Return the samples `key` of each usable record that has them."""
        return processes(self.records, key)

    def summary(self, key: str) -> Summary | None:
        """Return the summary of the samples `key` with the point's own warnings, or None where there are none."""
        found = self.processes(key)
        if not found:
            return None
        summary = statistics.summarize(found)
        return dataclasses.replace(summary, marks=(*summary.marks, *self.marks)) if self.marks else summary

    def scalar(self, key: str) -> Any:
        """Return the scalar `key`, the largest of the replicates', or None where none has it."""
        found = [record.scalars[key] for record in self.records if record.scalars.get(key) is not None]
        return max(found, default=None)

    def stepwise(self, combine: Callable[[float, float], float], first: str, second: str) -> Summary | None:
        """Return the summary of `combine(first, second)` step by step, of samples that were measured in turn.

        Args:
            combine: such as `operator.sub`.
            first: the key of its first argument's samples.
            second: the key of its second argument's samples.
        """
        found = []
        for record in self.records:
            sides = [processes([record], key) for key in (first, second)]
            if all(sides):
                found.append([combine(one, other) for one, other in zip(sides[0][0], sides[1][0], strict=True)])
        return statistics.summarize(found) if found else None


def compared(
    base: Group | None, other: Group | None, key: str, work: Callable[[Group], float] = lambda _: 1.0
) -> Comparison | None:
    """Return how fast `other` is relative to `base`, by the samples `key`, or None where one has none.

    Args:
        base: the point that is compared against.
        other: the point that is compared.
        key: the samples, in seconds.
        work: what a point does in this time, where the two do not do the same; what is compared is the time of a unit.
    """
    sides = [
        [seconds / work(group) for seconds in statistics.medians(group.processes(key))] if group else []
        for group in (base, other)
    ]
    return statistics.compare(sides[0], sides[1]) if all(sides) else None


def processes(records: Iterable[Record], key: str) -> list[list[float]]:
    """Return the samples `key` of each record that has them, one list for each process.

    Where there are samples by rank, the slowest rank's counts at each step: the others wait for it.
    """
    found = []
    for record in records:
        values = record.samples.get(key)
        if values and isinstance(values[0], list):
            values = [max(step) for step in zip(*values, strict=True)]
        if values:
            found.append(values)
    return found


def is_ok(row: Row) -> bool:
    """Return whether a cell has numbers of today's code and settings."""
    return bool(row["state"] == "fresh" and row["status"] == "ok")


def label(row: Row) -> str:
    """Return the status of a cell: that of its record, or why the record does not count."""
    if row["state"] == "missing":
        return "not measured"
    if row["state"] == "stale":
        return "stale" if row["record"] is not None else "unreadable"
    return str(row["status"])


def why(row: Row) -> Sequence[str]:
    """Return the reasons why a cell gives no number; none where it does or where nothing was measured yet."""
    if row["state"] == "stale":
        return tuple(row["reasons"])
    record = row["record"]
    return (record.reason,) if record is not None and record.reason else ()
