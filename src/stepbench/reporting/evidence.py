"""What a sentence rests on: the rows that it speaks of, their warnings, and how certain they make it.

A finding cannot be made without evidence, and evidence cannot be made without rows. The sentence gives the numbers;
what must be said beside them follows from the evidence and is the same everywhere.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stepbench.reporting import marks, nodes
from stepbench.reporting.columns import axis_words
from stepbench.reporting.marks import Mark
from stepbench.reporting.nodes import Placed
from stepbench.reporting.points import Group, Row, compared
from stepbench.reporting.statistics import MIN_PROCESSES, Comparison, Summary, Verdict

# What a sentence's times are: the key of samples, or what a point's samples come to.
By = str | Callable[[Group], Summary | None]
SCOPE = ("size", "preset", "context", "batch", "ranks", "passes")
# What else a point may have been measured with; a sentence names it where the grid has several.
SHARED = (*SCOPE, "nodes", "seq", "head_dim", "heads", "causal", "precision", "dtype")
EVIDENT = ("size", "preset", "passes", "precision", "dtype")  # axes whose values say what they are
DOUBTFUL, UNUSABLE = "C", "D"


class Certainty(enum.StrEnum):
    """How certain a sentence is, the most certain first."""

    STATED = "stated"
    HEDGED = "hedged"  # a row has quality C
    NO_VERDICT = "no verdict"  # what is compared has too few processes, or the two tests disagree
    SILENT = "silent"  # a row has quality D: nothing is said


@dataclass(frozen=True)
class Evidence:
    """The rows that a sentence speaks of, and what they allow it to say.

    Attributes:
        records: the keys of the rows: the paths of their records, relative to the root; of a sentence about what
            became of cells also of those that have none.
        shared: the axes of `SHARED` in which all points agree that have them, with their value.
        points: how many points there are.
        doubtful: how many of them have quality C.
        warnings: about the numbers of the sentence.
        comparison: of two of the points, where the sentence compares their times.
        is_ranking: whether the sentence names the first of several.
        placed: on which nodes the points were measured.
    """

    records: tuple[str, ...]
    shared: tuple[tuple[str, Any], ...] = ()
    points: int = 1
    doubtful: int = 0
    warnings: tuple[Mark, ...] = ()
    comparison: Comparison | None = None
    is_ranking: bool = False
    placed: Placed = nodes.UNKNOWN

    def __post_init__(self) -> None:
        if not self.records:
            raise ValueError("`records` must name the rows that a sentence speaks of, got none")

    @classmethod
    def of(cls, groups: Iterable[Group], *by: By, comparison: Comparison | None = None) -> Evidence:
        """Return the evidence of a sentence about points.

        Args:
            groups: the points, one or more.
            *by: the times that the sentence tells; none for bytes, counts and dtypes, which load and clocks do not
                change, so that only warnings of quality D hold for them.
            comparison: of two of the points, where the sentence compares their times.

        Raises:
            ValueError: there is no point.
        """
        every = list(groups)
        found = [_warnings(group, by) for group in every]
        return cls(
            _keys(row for group in every for row in group.rows),
            _shared(every),
            len(every),
            sum(marks.quality(each) == DOUBTFUL for each in found),
            tuple(dict.fromkeys(mark for each in found for mark in each)),
            comparison,
            placed=nodes.placed(every, compared=comparison is not None),
        )

    @classmethod
    def ranking(cls, groups: Iterable[Group], by: By, comparison: Comparison | None) -> Evidence:
        """Return the evidence of a sentence that names the first of several points.

        Args:
            groups: the points, in any order.
            by: the time that ranks them.
            comparison: of the first with the second.

        Raises:
            ValueError: there is no point.
        """
        made = cls.of(groups, by, comparison=comparison)
        return dataclasses.replace(made, is_ranking=True)

    @classmethod
    def cells(cls, rows: Iterable[Row]) -> Evidence:
        """Return the evidence of a sentence about the status or the warnings of cells, without numbers.

        Raises:
            ValueError: there is no row.
        """
        found = list(rows)
        return cls(tuple(dict.fromkeys(row["path"] for row in found)), points=len(found))

    @property
    def scope(self) -> str:
        """What all points share of what was measured, in words."""
        return _words((axis, value) for axis, value in self.shared if axis in SCOPE)

    @property
    def quality(self) -> str:
        """The worst quality of the numbers: A, B, C or D."""
        return marks.quality(self.warnings)

    @property
    def certainty(self) -> Certainty:
        """How certain the sentence is."""
        if self.quality == UNUSABLE:
            return Certainty.SILENT
        if self.comparison is not None and self.comparison.verdict is Verdict.UNCLEAR:
            return Certainty.NO_VERDICT
        return Certainty.HEDGED if self.doubtful else Certainty.STATED

    @property
    def caveat(self) -> str:
        """What must stand beside the sentence, in sentences of its own; empty where nothing must."""
        return " ".join(filter(None, (self._judged(), self.placed.sentence, self._hedged())))

    def _judged(self) -> str:
        found = self.comparison
        if found is None:
            return ""
        if found.verdict is Verdict.SAME and self.is_ranking:
            return f"Between the first two there is no difference: {found.why}."
        if found.verdict is not Verdict.UNCLEAR:
            return ""
        if min(found.processes) >= MIN_PROCESSES:
            return f"No verdict: {found.why}."
        if found.processes == (1, 1):
            return "One process each: no verdict."
        few, many = sorted(found.processes)
        return f"{few} and {many} processes: no verdict, which needs {MIN_PROCESSES} a side."

    def _hedged(self) -> str:
        if not self.doubtful:
            return ""
        kinds = dict.fromkeys(mark.kind for mark in self.warnings if marks.quality([mark]) == DOUBTFUL)
        many = f" ({self.doubtful} of {self.points} points)" if self.points > 1 else ""
        return f"Quality {DOUBTFUL}: {', '.join(kinds)}{many}."


def ranked(groups: Iterable[Group], key: str) -> tuple[list[Group], Comparison | None]:
    """Return the points that have the samples `key`, the fastest first, and the comparison of the first two."""
    known = [(summary.median, group) for group in groups if (summary := group.summary(key))]
    order = [group for _, group in sorted(known, key=lambda each: each[0])]
    return order, compared(order[1], order[0], key) if len(order) > 1 else None


def scope(groups: Sequence[Group], *without: str) -> str:
    """Return what points share of what was measured: size or preset, context, batch and ranks, and the mode."""
    return _words((axis, value) for axis, value in _shared(groups) if axis in SCOPE and axis not in without)


def worded(axis: str, value: Any) -> str:
    """Return an axis with its value, such as `context 64`, `nano` or `not causal`."""
    if isinstance(value, bool):
        return f"{'' if value else 'not '}{axis_words(axis)}"
    return axis_words(value) if axis in EVIDENT else f"{axis_words(axis)} {axis_words(value)}"


def _words(shared: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(worded(axis, value) for axis, value in shared)


def _shared(groups: Sequence[Group]) -> tuple[tuple[str, Any], ...]:
    """Return the axes in which the points agree that have them, with their value; without those that are None."""
    found = []
    for axis in SHARED:
        values = {group.point[axis] for group in groups if axis in group.point}
        if len(values) == 1 and (value := values.pop()) is not None:
            found.append((axis, value))
    return tuple(found)


def _warnings(group: Group, by: Sequence[By]) -> list[Mark]:
    """Return the warnings about some times of a point, or about what is no time."""
    if not by:
        return marks.fatal(group.marks)
    summaries = [group.summary(each) if isinstance(each, str) else each(group) for each in by]
    return [*(mark for summary in summaries if summary for mark in summary.marks), *group.marks]


def _keys(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the paths of the rows' records; of the cells, where none of them has a record."""
    found = list(rows)
    existing = [row["path"] for row in found if row["state"] != "missing"]
    return tuple(dict.fromkeys(existing or [row["path"] for row in found]))
