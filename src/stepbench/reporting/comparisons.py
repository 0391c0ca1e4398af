"""Comparisons along one axis, all others equal: ratios with intervals and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepbench.reporting import columns as col
from stepbench.reporting import marks, markup, nodes, statistics, units
from stepbench.reporting.frames import Results
from stepbench.reporting.marks import Mark
from stepbench.reporting.points import Group, Row, compared
from stepbench.reporting.statistics import Comparison
from stepbench.reporting.tables import Table

READING = (
    f"The ratio is the speed of the row over that of the baseline (above 1: the row is faster), with its "
    f"{100 * statistics.RATIO_LEVEL:.0f} % interval over process medians. Detectable: the smallest effect that such a "
    f"comparison detects with {100 * statistics.POWER:.0f} % power."
)


@dataclass(frozen=True)
class Pair:
    """Two points of a grid that differ along one axis.

    Attributes:
        axis: the axis.
        baseline: the point that is compared against.
        other: the point that is compared.
        comparison: of the two, or None where one has no numbers.
        key: the samples that were compared.
    """

    axis: str
    baseline: Group
    other: Group
    comparison: Comparison | None
    key: str = "step_s"

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The warnings of both sides' samples."""
        sides = {"baseline": self.baseline.summary(self.key), "other": self.other.summary(self.key)}
        return tuple(m for side, summary in sides.items() if summary for m in marks.about(side, summary.marks))

    @property
    def value(self) -> Any:
        """The other's value along the axis."""
        return self.other.point[self.axis]

    @property
    def processes(self) -> int:
        """How many processes the side with fewer of them has."""
        return min(self.comparison.processes) if self.comparison else 0


def pairs(results: Results, axis: str, baseline: Any, key: str = "step_s") -> list[Pair]:
    """Return each point off the baseline beside the point that differs along `axis` alone, where both are configured.

    Args:
        results: the experiment's results.
        axis: the axis to compare along.
        baseline: its value that the others are compared with.
        key: the samples to compare.
    """
    groups = results.groups()
    by_point = {tuple(group.point.items()): group for group in groups}
    found = []
    for group in groups:
        base = by_point.get(tuple((group.point | {axis: baseline}).items()))
        if base is None or group.point[axis] == baseline:
            continue
        found.append(Pair(axis, base, group, compared(base, group, key), key))
    return found


def table(found: Sequence[Pair], title: str, caption: str, empty: str, key: str = "step_s") -> Table:
    """Return the table of comparisons along one axis.

    Args:
        found: the comparisons.
        title: its heading.
        caption: what is compared, a sentence.
        empty: what to say where the grid compares nothing.
        key: the samples that were compared.
    """
    rows = [_row(pair, key) for pair in found]
    if not found:
        return Table(title, caption, [], empty=empty)
    axis = found[0].axis
    others = [each for each in found[0].other.point if each != axis]
    unit = col.time_unit(rows, ("baseline", "other"))
    columns = [
        *col.axis_columns(rows, others),
        col.value(axis, text=col.axis_text, numeric=False),
        col.Column(
            col.axis_text(found[0].baseline.point[axis]), lambda row: col.middle("baseline", unit, row), unit.name
        ),
        col.Column(_heading(found), lambda row: col.middle("other", unit, row), unit.name),
        col.ratio("speedup", "ratio"),
        col.Column("verdict", lambda row: row["verdict"] or units.NOTHING, numeric=False),
        col.Column("detectable", _detectable, secondary=True),
        col.Column("processes", lambda row: f"{row['baseline_processes']} / {row['other_processes']}", secondary=True),
        col.WARNINGS,
        nodes.COLUMN,
        col.Column("status", _status, numeric=False),
    ]
    return Table(title, f"{caption} {READING}", rows, columns, empty, others)


def _heading(found: Sequence[Pair]) -> str:
    values = dict.fromkeys(col.axis_text(pair.value) for pair in found)
    return next(iter(values)) if len(values) == 1 else "compared"


def _row(pair: Pair, key: str) -> dict[str, Any]:
    sides = {"baseline": pair.baseline, "other": pair.other}
    summaries = {side: group.summary(key) for side, group in sides.items()}
    comparison = pair.comparison
    row: dict[str, Any] = dict(pair.other.point)
    for side, summary in summaries.items():
        row |= {f"{side}_{part}_s": getattr(summary, part) if summary else None for part in ("median", "low", "high")}
        row[f"{side}_processes"] = summary.processes if summary else 0
        row[f"{side}_status"], row[f"{side}_reason"] = sides[side].status, sides[side].reason
    return {
        **row,
        **col.ratio_of("speedup", comparison),
        "p_value": comparison.p_value if comparison else None,
        "visible_ratio": comparison.visible_ratio if comparison else None,
        "verdict": comparison.verdict.value if comparison else None,
        "why": comparison.why if comparison else None,
        **col.warned(pair.marks),
        **nodes.row(side.records for side in sides.values()),
        col.RECORDS: {col.axis_words(side.point[pair.axis]): side.paths for side in (pair.baseline, pair.other)},
    }


def _detectable(row: Row) -> str:
    found = row["visible_ratio"]
    if found is None:
        return units.NOTHING
    return units.percent(found - 1) if found < 2 else units.ratio(found) if found < units.WIDE else "none"


def _status(row: Row) -> str:
    parts = []
    for side in ("baseline", "other"):
        status, reason = row[f"{side}_status"], row[f"{side}_reason"]
        if status != "ok":
            parts.append(f"{side} {markup.escape(status)}" + (f": {markup.escape(reason)}" if reason else ""))
    return markup.BREAK.join(parts) or "ok"
