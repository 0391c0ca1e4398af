"""What a sentence rests on: the rows that it speaks of, their warnings, and how certain they make it.

A finding cannot be made without evidence, and evidence cannot be made without rows. The sentence gives the numbers;
what must be said beside them follows from the evidence and is the same everywhere.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stepbench.reporting import marks, nodes
from stepbench.reporting.columns import axis_words
from stepbench.reporting.marks import Mark
from stepbench.reporting.nodes import Placed
from stepbench.reporting.points import Group, Row, compared
from stepbench.reporting.statistics import MIN_PROCESSES, Comparison, Summary, Verdict

# What a sentence's times are: the key of samples, or what a point's samples come to.
By = str | Callable[[Group], Summary | None]
SCOPE = ("size", "preset", "context", "batch", "ranks", "passes")
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
        scope: what all points share, in words.
        points: how many points there are.
        doubtful: how many of them have quality C.
        warnings: about the numbers of the sentence.
        comparison: of two of the points, where the sentence compares their times.
        is_ranking: whether the sentence names the first of several.
        placed: on which nodes the points were measured.
    """

    records: tuple[str, ...]
    scope: str = ""
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
            scope(every),
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
    parts = []
    for axis in (axis for axis in SCOPE if axis not in without):
        found = {group.point.get(axis) for group in groups}
        if len(found) == 1 and (value := found.pop()) is not None:
            name = "" if axis in ("size", "preset", "passes") else f"{axis} "
            parts.append(f"{name}{axis_words(value)}")
    return ", ".join(parts)


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
