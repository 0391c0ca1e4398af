"""What the first screen of a report is made of: values that experiments contribute, and what follows from all records.

An experiment contributes through a `summary.py` with `summarize(results) -> Contribution`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stepbench.reporting.findings import CONTRADICTION, Told, listing, plural
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group, is_ok, label
from stepbench.reporting.statistics import Comparison, Summary
from stepbench.reporting.tables import Shown, Table

MATTERING = 5  # findings that are shown
FAILED = ("error", "timeout", "oom", "unreadable")
_EFFECTS = ("FASTER", "SLOWER")


@dataclass(frozen=True)
class Speed:
    """The fastest way that was measured to train a model at a context.

    Attributes:
        size: the model's name.
        context: tokens per sequence.
        group: the point that was measured.
        step: the summary of its step's time.
        tokens_per_step: of all ranks.
        way: how it differs from the plain step, in words.
        mfu_ratio: model FLOPs over time and over the measured peak, or None.
        over_plain: the comparison with the plain step of the same shape; None where this is the plain one, or where
            that has no numbers.
        is_plain: whether it is the plain step.
    """

    size: str
    context: int
    group: Group
    step: Summary
    tokens_per_step: int
    way: str
    mfu_ratio: float | None
    over_plain: Comparison | None
    is_plain: bool

    @property
    def tokens_per_s(self) -> float:
        """The rate at the median."""
        return self.tokens_per_step / self.step.median

    @property
    def interval_per_s(self) -> tuple[float | None, float | None]:
        """The interval of the rate."""
        low, high = self.step.low, self.step.high
        return (
            self.tokens_per_step / high if high else None,
            self.tokens_per_step / low if low else None,
        )


@dataclass(frozen=True)
class Contribution:
    """What one experiment has to say at the top of a report."""

    speeds: Sequence[Speed] = ()
    fits: Sequence[Table] = ()


@dataclass(frozen=True)
class Sureness:
    """What the numbers of a report rest on.

    Attributes:
        processes: how many records hold numbers; each is of a process of its own.
        failed: how many cells failed.
        missing: how many cells have no fresh record.
        days: the dates of measurement, the first and the last.
        software: name -> versions, of torch and the driver.
        warned: how many of the records stand in a row of a table that carries a warning.
    """

    processes: int
    failed: int
    missing: int
    days: Sequence[str]
    software: Mapping[str, Sequence[str]]
    warned: int


@dataclass(frozen=True)
class Rival:
    """Another machine against this one, in words.

    Attributes:
        text: a sentence or two.
        commands: what to run here to compare more.
        is_comparable: whether anything is compared.
    """

    text: str
    commands: Sequence[str] = ()
    is_comparable: bool = False


@dataclass(frozen=True)
class Highlight:
    """A finding that matters, and the title of the section that it stands in."""

    text: str
    section: str


def fastest(speeds: Iterable[Speed]) -> list[Speed]:
    """Return the fastest way of each size and context, in their order."""
    best: dict[tuple[str, int], Speed] = {}
    for each in speeds:
        key = (each.size, each.context)
        if key not in best or each.tokens_per_s > best[key].tokens_per_s:
            best[key] = each
    return list(best.values())


def sureness(results: Iterable[Results], shown: Iterable[Shown]) -> Sureness:
    """Return what the numbers of a report rest on.

    Args:
        results: of all experiments.
        shown: all tables.
    """
    rows = [row for each in results for row in each.rows]
    records = {row["path"]: row["record"] for row in rows if is_ok(row)}
    warned = {
        path
        for table in shown
        for row in table.rows
        if row.warnings
        for paths in row.records.values()
        for path in paths
    }
    days = sorted({record.started[:10] for record in records.values()})
    software = {
        name: sorted({str(found) for record in records.values() if (found := record.environment.get(name))})
        for name in ("torch", "driver")
    }
    return Sureness(
        len(records),
        sum(label(row) in FAILED for row in rows),
        sum(label(row) in ("stale", "not measured") for row in rows),
        days,
        {name: found for name, found in software.items() if found},
        len(warned & records.keys()),
    )


def highlights(found: Mapping[str, Sequence[Told]], results: Mapping[str, Results]) -> list[Highlight]:
    """Return what matters most: failed cells, then effects with a verdict and contradictions, the largest first.

    Args:
        found: title of a section -> its findings.
        results: title of a section -> its results.
    """
    ranked = []
    for title, each in results.items():
        failed = [row for row in each.rows if label(row) in FAILED]
        if failed:
            kinds = listing(list(dict.fromkeys(label(row) for row in failed)))
            text = f"{len(failed)} of {plural(len(each.rows), 'cell')} gave no number ({kinds})."
            ranked.append((0, -float(len(failed)), Highlight(text, title)))
    ranked += [
        (1, -(abs(math.log(each.ratio)) if each.ratio else math.inf), Highlight(each.text, title))
        for title, findings in found.items()
        for each in findings
        if each.kind == CONTRADICTION or (each.verdict in _EFFECTS and each.ratio)
    ]
    return [each for _, _, each in sorted(ranked, key=lambda entry: entry[:2])[:MATTERING]]
