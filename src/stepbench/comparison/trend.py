"""The time of a point over the versions of code and software, where it was measured often enough."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepbench.comparison import changes
from stepbench.comparison.known import Known, Point
from stepbench.pipeline import fingerprint
from stepbench.reporting import conditions, main_time, statistics
from stepbench.reporting.statistics import Summary

LEAST = 3  # measurements that make a trend
MOST_SHOWN = 8  # points in the figure, those that have changed most


@dataclass(frozen=True)
class Step:
    """What was measured on one day with one version of code and software.

    Attributes:
        day: ISO date.
        summary: of its processes.
        paths: the files of its records.
        causes: what changed from the step before; empty where nothing did.
    """

    day: str
    summary: Summary
    paths: tuple[str, ...]
    causes: str


@dataclass(frozen=True)
class Trend:
    """The steps of one point, the earliest first."""

    of: Point
    steps: tuple[Step, ...]

    @property
    def point(self) -> dict[str, Any]:
        """Axis -> value."""
        return dict(self.of.values)

    @property
    def paths(self) -> list[str]:
        """The files of all its records."""
        return [path for step in self.steps for path in step.paths]

    @property
    def spread(self) -> float:
        """The largest time over the smallest."""
        medians = [step.summary.median for step in self.steps]
        return max(medians) / min(medians) if min(medians) > 0 else math.inf


def find(points: Mapping[Point, Sequence[Known]]) -> list[Trend]:
    """Return the trend of each point that was measured often enough with one definition on one machine.

    Args:
        points: all measurements that are known of each point, the earliest first.
    """
    found = []
    for point, measured in points.items():
        timed = [each for each in measured if main_time.median(each.record)]
        alike = [each for each in timed if changes.is_alike(each.record, timed[-1].record)]
        steps = _steps(alike)
        if len(steps) >= LEAST:
            found.append(Trend(point, steps))
    return sorted(found, key=lambda trend: -trend.spread)


def _steps(measured: Sequence[Known]) -> tuple[Step, ...]:
    together: list[list[Known]] = []
    for each in measured:
        if together and _key(together[-1][-1]) == _key(each):
            together[-1].append(each)
        else:
            together.append([each])
    steps = []
    for position, group in enumerate(together):
        records = [each.record for each in group]
        before = together[position - 1][-1].record if position else records[0]
        differences = fingerprint.difference(before.fingerprint, records[0].fingerprint)
        summary = statistics.summarize(main_time.processes(records))
        summary = dataclasses.replace(summary, marks=(*summary.marks, *conditions.find(records)))
        paths = tuple(each.path for each in group)
        steps.append(Step(records[0].started[:10], summary, paths, changes.causes(differences)))
    return tuple(steps)


def _key(each: Known) -> tuple[str, str]:
    return changes.version(each.record), each.record.started[:10]
