"""The same quantity, measured in two kinds of cells: a forward pass alone and inside of a step, a step here and there.

Such numbers must agree. They differ where they are more than `WITHIN` apart and their intervals do not overlap; what is
then wrong with one of them is for a person to find out, but nobody may read one without knowing of the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepbench.reporting import columns as col
from stepbench.reporting import marks, units
from stepbench.reporting.columns import axis_words
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import CONTRADICTION, Finding, said
from stepbench.reporting.frames import Results
from stepbench.reporting.marks import Mark
from stepbench.reporting.points import Group, compared
from stepbench.reporting.tables import Table

WITHIN = 0.05  # beyond which a difference is one, if the intervals do not overlap either
PHASES = ("forward", "backward")
STEP = "step"
WHOLE = f"{STEP}_s"
FROM_MOST_TO_LEAST = ("train_step", "forward_backward", "forward")
AGREES, DIFFERS, UNKNOWN = "agrees", "differs", "no interval"


@dataclass(frozen=True)
class Reading:
    """A quantity as one kind of cell measured it.

    Attributes:
        where: in words: the experiment, and what tells this cell from the other.
        groups: the points that it rests on; one, or those of a fit.
        key: the samples.
        median_s, low_s, high_s: the median and its interval; None in both where there is none.
        marks: the warnings.
    """

    where: str
    groups: tuple[Group, ...]
    key: str
    median_s: float
    low_s: float | None
    high_s: float | None
    marks: tuple[Mark, ...] = ()

    @classmethod
    def of(cls, where: str, group: Group, key: str) -> Reading | None:
        """Return what a point measured, or None where it has no such samples."""
        found = group.summary(key)
        if found is None or not found.median:
            return None
        return cls(where, (group,), key, found.median, found.low, found.high, found.marks)


@dataclass(frozen=True)
class Agreement:
    """Two readings of one quantity, such as `a training step of nano, context 64, batch 4`."""

    quantity: str
    first: Reading
    second: Reading

    @property
    def ratio(self) -> float:
        """The second over the first."""
        return self.second.median_s / self.first.median_s

    @property
    def verdict(self) -> str:
        """`agrees`, `differs`, or `no interval` where the two are apart and one of them has no interval."""
        if max(self.ratio, 1 / self.ratio) <= 1 + WITHIN:
            return AGREES
        if self.first.low_s is None or self.first.high_s is None or self.second.low_s is None:
            return UNKNOWN
        if self.second.high_s is None:
            return UNKNOWN
        apart = self.second.low_s > self.first.high_s or self.second.high_s < self.first.low_s
        return DIFFERS if apart else AGREES


def of_steps(results: Results, defaults: Mapping[str, Any]) -> list[Agreement]:
    """Return the pairs of readings of steps and their phases, in these results and in those that they read.

    A phase is the same in cells that differ in their passes alone. A step is the same in cells of two experiments that
    agree in every axis and in their tokens and FLOPs; an axis that one experiment lacks has the other's default. Of
    several that differ in warm-up the longest counts. Of a cell that times two kinds of steps each is looked at.

    Args:
        results: the experiment's results.
        defaults: axis -> the value that it has where a cell does not have the axis.
    """
    own = [group for group in results.groups() if group.summary(WHOLE)]
    return [*_phases(own), *_steps(own, results.others, defaults)]


def _phases(groups: Sequence[Group]) -> list[Agreement]:
    by_point: dict[tuple[Any, ...], dict[str, Group]] = {}
    for group in groups:
        rest = tuple(value for axis, value in group.point.items() if axis not in ("passes", "optimizer"))
        by_point.setdefault(rest, {}).setdefault(group.point["passes"], group)
    found = []
    for sides in by_point.values():
        order = [sides[passes] for passes in FROM_MOST_TO_LEAST if passes in sides]
        for phase in PHASES:
            readings = [
                reading
                for group in order
                if (reading := Reading.of(axis_words(group.point["passes"]), group, f"{phase}_s"))
            ]
            found += _pairs(f"the {phase} pass of {_named(order[0], groups, phase=True)}", readings)
    return found


def _steps(groups: Sequence[Group], others: Mapping[str, Results], defaults: Mapping[str, Any]) -> list[Agreement]:
    found = []
    for group in groups:
        readings = [Reading.of(group.records[0].experiment, group, WHOLE)]
        wanted, warm = _work(group, STEP, {}, defaults), _warmup(group)
        for name, other in others.items():
            alike = [
                (each, f"{kind}_s")
                for each in other.groups()
                for kind, settings in _kinds_of_step(each)
                if _work(each, kind, settings, defaults) == wanted and _warmup(each) >= warm
            ]
            if alike:
                readings.append(Reading.of(name, *max(alike, key=lambda found: _warmup(found[0]))))
        quantity = f"the step of {_named(group, groups, phase=False)}, {axis_words(group.point['passes'])}"
        found += _pairs(quantity, [reading for reading in readings if reading])
    return found


def _pairs(quantity: str, readings: Sequence[Reading]) -> list[Agreement]:
    return [Agreement(quantity, readings[0], other) for other in readings[1:]]


def _kinds_of_step(group: Group) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name of each kind of whole step that a point has timed, with the settings that the point lacks.

    The samples of `step` are `step_s`. A record that has timed two kinds has the settings of each in its details, under
    the same name.
    """
    details = group.records[0].details if group.records else {}
    kinds: dict[str, Mapping[str, Any]] = {STEP: {}}
    kinds |= {name: found for name, found in details.items() if isinstance(found, Mapping)}
    for name, settings in kinds.items():
        if group.summary(f"{name}_s"):
            yield name, settings


def _work(group: Group, kind: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what two steps must share to do the same work, whatever axes their experiments have."""
    axes = [axis for axis in defaults if axis not in ("context", "batch")]  # which tokens and FLOPs tell
    point = {**defaults, **group.point, **settings}
    tokens, flops = group.scalar("tokens_per_step"), group.scalar("forward_flops")
    own = tokens if kind == STEP else group.scalar(f"{kind}_tokens_per_step")
    if own != tokens and own and tokens and flops:
        flops = flops * own / tokens  # of another batch
    return (group.point.get("size"), own, flops, *(point[axis] for axis in axes))


def _warmup(group: Group) -> int:
    return min(int(record.protocol.get("warmup_steps", 0)) for record in group.records)


def _named(group: Group, shown: Sequence[Group], *, phase: bool) -> str:
    """Return a point in words; what is no part of a phase, the optimizer, is not named with one."""
    unnamed = ("optimizer",) if phase or group.point["passes"] != "train_step" else ()
    return ", ".join(
        filter(
            None,
            (
                str(group.point["size"]),
                f"context {group.point['context']}, batch {group.point['batch']}",
                col.differences(group, shown, "size", "context", "batch", "passes", *unnamed),
            ),
        )
    )


def table(found: Sequence[Agreement], caption: str) -> Table:
    """Return one row for each pair of readings.

    Args:
        found: the pairs.
        caption: what is compared, a sentence.
    """
    rows = [_row(each) for each in found]
    unit = col.time_unit(rows, ("first", "second"))
    columns = [
        col.word("quantity"),
        col.word("first_where", "measured in"),
        col.interval("first", unit, "median"),
        col.word("second_where", "and in"),
        col.interval("second", unit, "median"),
        col.value("second_over_first_ratio", "second over first", units.ratio),
        col.word("verdict", "agreement"),
        col.WARNINGS,
    ]
    rule = f"They differ where they are more than {100 * WITHIN:g} % apart and their intervals do not overlap."
    empty = "No quantity was measured in two kinds of cells."
    return Table("The same quantity in two kinds of cells", f"{caption} {rule}", rows, columns, empty)


def find(found: Sequence[Agreement]) -> list[Finding]:
    """Return each disagreement with both records, or that there is none."""
    if not found:
        return []
    told = []
    for each in (each for each in found if each.verdict == DIFFERS):
        text = (
            f"Two measurements of {each.quantity} disagree: {_told(each.first)} and {_told(each.second)}, "
            f"{units.ratio(each.ratio)}."
        )
        told += [
            dataclasses.replace(finding, apart=each.ratio) for finding in said(CONTRADICTION, [text], _evidence(each))
        ]
    agree = [each for each in found if each.verdict == AGREES]
    if agree and not told:
        count = "One quantity" if len(agree) == 1 else f"{len(agree)} quantities"
        text = f"{count} measured in two kinds of cells: both agree within {100 * WITHIN:g} % or their intervals."
        groups = [group for each in agree for side in (each.first, each.second) for group in side.groups]
        told = said("agreement", [text], Evidence.of(groups, *dict.fromkeys(each.first.key for each in agree)))
    return told


def _evidence(found: Agreement) -> Evidence:
    sides = (found.first, found.second)
    groups = [group for side in sides for group in side.groups]
    keys = tuple(dict.fromkeys(side.key for side in sides))
    first, second = found.first.groups, found.second.groups
    alone = len(first) == len(second) == len(keys) == 1
    comparison = compared(first[0], second[0], keys[0]) if alone else None
    return Evidence.of(groups, *keys, comparison=comparison)


def _told(reading: Reading) -> str:
    unit = units.pick(units.SECONDS, [reading.median_s])
    shown = units.middle(reading.median_s, reading.low_s, reading.high_s, per=unit.size)
    return f"{shown} {unit.name} in {reading.where}"


def _row(found: Agreement) -> dict[str, Any]:
    row: dict[str, Any] = {"quantity": found.quantity}
    warnings: list[Mark] = []
    records: dict[str, Iterable[str]] = {}
    for name, side in (("first", found.first), ("second", found.second)):
        row |= {f"{name}_where": side.where, f"{name}_median_s": side.median_s}
        row |= {f"{name}_low_s": side.low_s, f"{name}_high_s": side.high_s}
        warnings += marks.about(side.where, side.marks)
        records[side.where] = [path for group in side.groups for path in group.paths]
    return {
        **row,
        "second_over_first_ratio": found.ratio,
        "verdict": found.verdict,
        **col.warned(warnings),
        col.RECORDS: records,
    }
