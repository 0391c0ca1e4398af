"""Two machines compared: the same metric at the same cell, made from the same definition and protocol.

A published number is compared by what its document states; what it leaves open is noted beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stepbench.comparison.headlines import Headline, headlines
from stepbench.comparison.machines import Machine
from stepbench.experiments import experiment as experiments
from stepbench.pipeline.records import Record
from stepbench.reporting import conditions, marks, statistics
from stepbench.reporting.columns import axis_words
from stepbench.reporting.marks import Mark
from stepbench.reporting.statistics import Comparison

# Where data lies belongs to the machine, not to the cell.
OF_THE_MACHINE = ("shards_dir",)
STATED = ("warmup_steps", "measured_steps", "seed")


@dataclass(frozen=True)
class Pair:
    """One headline on two machines.

    Attributes:
        mine, other: of the first machine and of the second.
        comparison: of the second against the first: above 1 the second is faster.
        warnings: about either number.
        notes: what makes the two less alike than they look.
    """

    mine: Headline
    other: Headline
    comparison: Comparison
    warnings: tuple[Mark, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """A setting in which two records differ."""

    key: str
    here: Any
    there: Any

    def __str__(self) -> str:
        return f"{self.key} is {self.here} here, {self.there} there"


@dataclass(frozen=True)
class Unlike:
    """A headline that both machines have, from different definitions or protocols."""

    mine: Headline
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Compared:
    """The comparison of two machines.

    Attributes:
        pairs: what can be compared.
        unlike: what both have, but not alike.
        alone: headlines that only the first and only the second has.
    """

    pairs: tuple[Pair, ...]
    unlike: tuple[Unlike, ...]
    alone: tuple[tuple[Headline, ...], tuple[Headline, ...]]


def compare(mine: Machine, other: Machine) -> Compared:
    """Compare the headlines of two machines."""
    sides = [{each.key: each for each in headlines(machine.records)} for machine in (mine, other)]
    pairs, unlike = [], []
    for key, first in sides[0].items():
        second = sides[1].get(key)
        if second is None:
            continue
        if differences := _unlike(first, second):
            unlike.append(Unlike(first, differences))
        else:
            found = statistics.compare(first.medians_s, second.medians_s)
            warnings = [
                mark
                for machine, each in ((mine, first), (other, second))
                for mark in marks.about(machine.name, conditions.find(list(each.records)))
            ]
            pairs.append(Pair(first, second, found, tuple(warnings), _notes(first, second)))
    one, two = (tuple(each for key, each in here.items() if key not in there) for here, there in (sides, sides[::-1]))
    return Compared(tuple(pairs), tuple(unlike), (one, two))


def words(headline: Headline) -> str:
    """Return a cell's axes in words, without those that have their default."""
    fields = {each.name: each.default for each in dataclasses.fields(experiments.load(headline.metric.experiment).cell)}
    return ", ".join(
        f"{axis_words(axis)} {axis_words(found)}" for axis, found in headline.cell.items() if found != fields[axis]
    )


def _unlike(mine: Headline, other: Headline) -> tuple[Difference, ...]:
    """Return how definition or protocol of any record differ from the first one's, as far as both state them."""
    if of_host(mine) and (hosts := _hosts(mine, other)) is not None:
        return (hosts,)
    first = mine.records[0]
    for record in (*mine.records, *other.records):
        if differences := _differences(first, record):
            return differences
    return ()


def of_host(headline: Headline) -> bool:
    """Return whether a number is one of the host's CPU, whatever device stands beside it: Gloo reduces there."""
    return headline.cell.get("backend") == "gloo"


def _hosts(mine: Headline, other: Headline) -> Difference | None:
    """Return that a host is not stated, or None where both are."""
    here, there = (each.records[0].environment.get("cpu") or "not stated" for each in (mine, other))
    return Difference("the host's CPU", here, there) if "not stated" in (here, there) else None


def _differences(first: Record, record: Record) -> tuple[Difference, ...]:
    here, there = (dict(_flat(_definition(each))) for each in (first, record))
    if not here or not there:
        here, there = ({key: each.protocol.get(key) for key in STATED} for each in (first, record))
        shared = [key for key in STATED if key in first.protocol and key in record.protocol]
    else:
        shared = sorted(here.keys() | there.keys())
    return tuple(Difference(key, here.get(key), there.get(key)) for key in shared if here.get(key) != there.get(key))


def _flat(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _definition(record: Record) -> dict[str, Any]:
    """Return the settings of a record, without what belongs to its machine; nothing where it has none."""
    found = record.fingerprint.get("definition")
    return {key: value for key, value in found.items() if key not in OF_THE_MACHINE} if isinstance(found, dict) else {}


def _notes(mine: Headline, other: Headline) -> tuple[str, ...]:
    notes = ["a number of the host's CPU"] if of_host(mine) else []
    records = (*mine.records, *other.records)
    sources = [record.fingerprint["source"] for record in records if record.fingerprint.get("source")]
    if any(source != sources[0] for source in sources):
        notes.append("different versions of the code")
    if not all(record.samples for record in records):
        notes.append("published means")
    if not all(record.protocol for record in records):
        notes.append("protocol not stated")
    return tuple(notes)
