"""A against B: what came of measuring the same cells on two sides in turn, as a table and as a file to keep."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepbench.comparison import in_turn
from stepbench.comparison.in_turn import Trial
from stepbench.pipeline import fingerprint, records
from stepbench.pipeline.fingerprint import SOURCE, Difference
from stepbench.pipeline.records import Record
from stepbench.process.storage import write_atomically
from stepbench.reporting import columns as col
from stepbench.reporting import conditions, main_time, marks, markup, statistics
from stepbench.reporting.statistics import Comparison
from stepbench.reporting.tables import Table

VERSION = 1
SIDES = ("a", "b")
MAY_DIFFER = (SOURCE, "software")  # what a trial compares; definition and machine are to be equal
# A key of the definition, or of the machine, belongs to this key of config.yaml.
OF_SECTION = {"size": "sizes", "preset": "presets", "threads": "protocol.threads"}


class TrialError(RuntimeError):
    """A trial cannot go on; the message says why."""


@dataclass
class Measured:
    """One cell on both sides while it is measured.

    Attributes:
        cell: as the user named it.
        trial: the medians and what the looks gave.
        records: of each side, in the order of their processes.
    """

    cell: str
    trial: Trial = field(default_factory=Trial)
    records: Mapping[str, list[Record]] = field(default_factory=lambda: {side: [] for side in SIDES})

    def add(self, side: str, record: Record) -> None:
        """Add a process of a side.

        Raises:
            TrialError: nothing was timed, or the side's code, settings or software have changed meanwhile.
        """
        median = main_time.median(record)
        if median is None:
            raise TrialError(f"side {side}: {record.experiment} {self.cell} times nothing that could be compared")
        before = self.records[side]
        if before and (changed := fingerprint.difference(before[0].fingerprint, record.fingerprint)):
            told = "; ".join(map(str, changed))
            raise TrialError(f"side {side} has changed while it was measured ({told}); start again")
        before.append(record)
        (self.trial.baseline if side == SIDES[0] else self.trial.other).append(median)

    @property
    def differences(self) -> list[Difference]:
        """What differs between the two sides' fingerprints."""
        first = [self.records[side][0].fingerprint for side in SIDES]
        return fingerprint.difference(first[0], first[1])

    def untold(self, told: Iterable[str]) -> list[Difference]:
        """Return in which settings the sides differ that nobody has named.

        Args:
            told: keys of config.yaml, such as `protocol.seed`, or of all that is below them, such as `protocol`.
        """
        told = tuple(told)
        return [each for each in self.differences if each.part not in MAY_DIFFER and not _is_told(each, told)]


@dataclass(frozen=True)
class Result:
    """What came of a trial of one cell.

    Attributes:
        cell: as the user named it.
        comparison: b against a: a ratio above 1 means that b is faster.
        looks: how often the interval was looked at.
        differences: between the two sides, in words.
        records: of each side, in the order of their processes.
    """

    cell: str
    comparison: Comparison
    looks: int
    differences: tuple[str, ...]
    records: Mapping[str, tuple[Record, ...]]


def result(found: Measured) -> Result:
    """Return what has come of a cell, after a last look if there was none."""
    found.trial.look(last=True)
    assert found.trial.comparison is not None  # noqa: S101 - a last look gives one
    kept = {side: tuple(found.records[side]) for side in SIDES}
    return Result(found.cell, found.trial.comparison, found.trial.looks, tuple(map(str, found.differences)), kept)


def table(found: Sequence[Result]) -> Table:
    """Return one row for each cell: both times, their ratio, the verdict."""
    rows = [_row(each) for each in found]
    unit = col.time_unit(rows, SIDES)
    columns = [
        col.value("cell", text=markup.escape, numeric=False),
        *(col.interval(side, unit, side) for side in SIDES),
        col.ratio("speedup", "ratio"),
        col.value("verdict", numeric=False),
        col.value("processes", numeric=False),
        col.WARNINGS,
        col.value("why", "reason", markup.escape, numeric=False),
    ]
    caption = (
        "Both sides were measured in turn, a process each. The ratio is the speed of b over that of a (above 1: b is "
        "faster). The interval was looked at after "
        f"{', '.join(str(in_turn.processes_at(look)) for look in range(1, 5))}, … processes a side, and all looks "
        f"together call two equal sides different in at most {100 * in_turn.ERROR_RATIO:.0f} % of trials."
    )
    return Table("b against a", caption, rows, columns)


def write(file: Path, found: Sequence[Result], sides: Mapping[str, Mapping[str, Any]], budget_minutes: float) -> None:
    """Write everything that a trial has measured.

    Args:
        file: where.
        found: the cells.
        sides: what is known of each side.
        budget_minutes: what the trial was allowed.
    """
    content = {
        "version": VERSION,
        "sides": sides,
        "budget_minutes": budget_minutes,
        "error_ratio": in_turn.ERROR_RATIO,
        "cells": [
            {
                "cell": each.cell,
                "comparison": dataclasses.asdict(each.comparison),
                "looks": each.looks,
                "differences": each.differences,
                "records": {
                    side: [json.loads(records.text(file, record)) for record in kept]
                    for side, kept in each.records.items()
                },
            }
            for each in found
        ],
    }
    write_atomically(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read(file: Path) -> list[Result]:
    """Return the cells that `write` has written.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: it is none of `write`'s, or of another version.
    """
    try:
        content = records.strict_json(file.read_bytes())
        if content["version"] != VERSION:
            raise ValueError(f"`version` must be {VERSION}, got {content['version']!r}")
        return [_result(each, file) for each in content["cells"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not a file of `stepbench ab`: {error}") from None


def _result(content: Mapping[str, Any], file: Path) -> Result:
    comparison = dict(content["comparison"])
    comparison |= {
        "processes": tuple(comparison["processes"]),
        "verdict": statistics.Verdict(comparison["verdict"]),
    }
    kept = {side: tuple(records.believe(each, file) for each in found) for side, found in content["records"].items()}
    return Result(content["cell"], Comparison(**comparison), content["looks"], tuple(content["differences"]), kept)


def _row(found: Result) -> dict[str, Any]:
    summaries = {side: statistics.summarize(main_time.processes(found.records[side])) for side in SIDES}
    warnings = [
        mark
        for side in SIDES
        for mark in marks.about(side, (*summaries[side].marks, *conditions.find(found.records[side])))
    ]
    row: dict[str, Any] = {
        "cell": found.cell,
        "time": main_time.label(found.records[SIDES[0]][0]),
        **col.ratio_of("speedup", found.comparison),
        "verdict": found.comparison.verdict.value,
        "p_value": found.comparison.p_value,
        "processes": " / ".join(map(str, found.comparison.processes)),
        "looks": found.looks,
        "why": found.comparison.why,
        **col.warned(warnings),
    }
    times = {key: value for side in SIDES for key, value in col.statistics_of(side, summaries[side]).items()}
    return {**row, **times}


def _is_told(difference: Difference, told: Sequence[str]) -> bool:
    first, dot, rest = difference.key.partition(".")
    section = OF_SECTION.get(first, first)
    if section in ("sizes", "presets"):  # `sizes.nano.layers` names `size.layers` of each cell
        parts = [name.split(".") for name in told if name.split(".")[0] == section]
        return any(len(part) < 3 or rest == ".".join(part[2:]) for part in parts)
    key = f"{section}{dot}{rest}"
    return any(key == name or key.startswith(f"{name}.") for name in told)
