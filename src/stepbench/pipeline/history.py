"""The history of a cell: its records that were replaced, below results/<machine>/history/<experiment>/<cell>/.

A record with numbers goes there before another one takes its place. Both steps are atomic: whatever ends the process,
the old record is in its place, or in the history, or in both.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import fingerprint, records
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.records import Record
from stepbench.process import storage

if TYPE_CHECKING:
    from stepbench.pipeline.state import States

FOLDER = "history"
DISTURBED = ("C", "D")  # qualities of what does not replace a better record by itself


@dataclass(frozen=True)
class Entry:
    """One record of a history.

    Attributes:
        path: its file.
        record: what is in it.
    """

    path: Path
    record: Record


@dataclass(frozen=True)
class History:
    """The history of one cell.

    Attributes:
        entries: its records, the earliest first.
        refused: why files in its folder are no records, one sentence for each.
    """

    entries: tuple[Entry, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """Which of two measurements of the same cell, code, settings and software stays in the cell's file.

    Attributes:
        stood: the quality of the record that stands there.
        came: the quality of what has just been measured, or its status if it failed.
        why: the warnings about the latter, or the reason of the failure.
        takes: whether the new one takes the place of the old one.
    """

    stood: str
    came: str
    why: str
    takes: bool

    def __str__(self) -> str:
        about = f" ({self.why})" if self.why else ""
        told = f"a fresh record of quality {self.stood} stood there, and this measurement is {self.came}{about}"
        if self.takes:
            return f"{told}: it takes its place, and the old record is in the history"
        lost = "" if self.came not in "ABCD" else ", and this one is in the history"
        return f"{told}: the old record is kept{lost}; `stepbench measure --replace` takes the new one"


def folder(path: Path) -> Path:
    """Return the folder of a cell's history; its record is `path`, results/<machine>/<experiment>/<cell>.json."""
    return path.parents[1] / FOLDER / path.parent.name / path.name.removesuffix(".json")


def read(path: Path) -> History:
    """Return the history of the cell whose record is `path`, which need not exist."""
    entries, refused = [], []
    for file in sorted(folder(path).glob("*.json")):
        try:
            entries.append(Entry(file, records.read(file)))
        except (records.RecordError, FileNotFoundError) as error:
            refused.append(str(error))
    return History(tuple(sorted(entries, key=lambda entry: entry.record.started)), tuple(refused))


def replace(path: Path, record: Record) -> None:
    """Write a record to `path`; one with numbers that stands there goes to the history first.

    Raises:
        stepbench.pipeline.records.RecordError: the record is not valid; nothing was written.
        OSError: the file system refuses.
    """
    text = records.text(path, record)
    keep(path)
    storage.write_atomically(path, text)


def keep(path: Path) -> None:
    """Copy the record at `path` to the history, if it is one and has numbers."""
    try:
        text = path.read_bytes()
        record = records.read(path)
    except (records.RecordError, FileNotFoundError):
        return
    if record.ok:
        _add(path, record, text)


def set_aside(path: Path, record: Record) -> None:
    """Write a record that does not take the place of the one at `path` to the history, if it has numbers."""
    if record.ok:
        _add(path, record, records.text(path, record).encode())


def choose(states: States, cell: Cell, before: Record | None, now: Record, *, take: bool = False) -> Choice | None:
    """Return which of two measurements of a cell stays in its file; None where there is nothing to choose.

    That is where there was no record with numbers before, or one of another fingerprint. What failed, was disturbed or
    is impossible does not replace what is better, unless `take` says so.

    Args:
        states: those of the configuration.
        cell: the cell.
        before: the record that stood in its file.
        now: what has just been measured.
        take: whether to replace a better record, too.
    """
    if before is None or not before.ok or before.cell != cell.values:
        return None
    if fingerprint.difference(before.fingerprint, now.fingerprint):
        return None
    from stepbench.reporting import frames, marks, quality  # 0.2 s, which a cell without an earlier record need not pay

    results = frames.load(states, experiments.load(cell.experiment), [cell])
    found = quality.warnings(results, now)
    stood = marks.quality(quality.warnings(results, before))
    came = marks.quality(found) if now.ok else now.status
    worse = not now.ok or (came in DISTURBED and came > stood)
    return Choice(stood, came, marks.text(found) if now.ok else str(now.reason), take or not worse)


def put(states: States, cell: Cell, now: Record, *, take: bool = False) -> None:
    """Write what has just been measured to the cell's file, or where `choose` keeps the old record to the history.

    Raises:
        stepbench.pipeline.records.RecordError: the record is not valid; nothing was written.
        OSError: the file system refuses.
    """
    path = states.bench.root / states.bench.path(cell)
    records.text(path, now)  # an invalid one has no quality
    try:
        before = records.read(path)
    except (records.RecordError, FileNotFoundError):
        before = None
    choice = choose(states, cell, before, now, take=take)
    if choice is None or choice.takes:
        replace(path, now)
    else:
        set_aside(path, now)
        os.utime(path)  # Snakemake compares file times: this job has run


def recorded(machine: Path) -> list[Path]:
    """Return the record paths of all cells of a machine that have a history, whether the records exist or not."""
    found = sorted(path for path in machine.glob(f"{FOLDER}/*/*") if path.is_dir())
    return [machine / path.parent.name / f"{path.name}.json" for path in found]


def merge(path: Path, found: Sequence[tuple[Record, bytes]]) -> int:
    """Write records of a bundle to the history of the cell whose record is `path`; return how many are new."""
    before = len(list(folder(path).glob("*.json")))
    for record, text in found:
        _add(path, record, text)
    return len(list(folder(path).glob("*.json"))) - before


def surplus(
    machine: Path, *, days: float | None = None, most: int | None = None, now: datetime.datetime | None = None
) -> list[Path]:
    """Return the files of a machine's histories that are beyond a bound, the earliest first.

    Args:
        machine: the machine's folder.
        days: how old a measurement may be.
        most: how many a cell may have; the latest stay.
        now: the time that ages are counted from.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    found: list[Path] = []
    for path in recorded(machine):
        files = sorted(folder(path).glob("*.json"), key=lambda file: _age_days(file, now), reverse=True)
        late = 0 if most is None else max(0, len(files) - most)
        found += [
            file
            for position, file in enumerate(files)
            if position < late or (days is not None and _age_days(file, now) > days)
        ]
    return found


def remove(files: Iterable[Path]) -> None:
    """Remove files of histories, and the folders of a cell and its experiment that become empty."""
    for file in files:
        file.unlink()
        for above in file.parents[:2]:
            if not any(above.iterdir()):
                above.rmdir()


def name_of(record: Record) -> str:
    """Return the name of a record's file in a history: when it was started, in UTC."""
    moment = _moment(record.started)
    if moment is None:  # it comes from elsewhere
        return f"undated-{fingerprint.digest(record.started)}"
    return moment.strftime("%Y-%m-%dT%H-%M-%S") + f".{moment.microsecond // 1000:03d}Z"


def _add(path: Path, record: Record, text: bytes) -> None:
    file = folder(path) / f"{name_of(record)}.json"
    if file.exists() and file.read_bytes() != text:  # another one of the same moment, of a merged bundle
        file = file.with_name(f"{name_of(record)}-{fingerprint.digest(text)}.json")
    if not file.exists():
        storage.write_atomically(file, text)


def _age_days(file: Path, now: datetime.datetime) -> float:
    try:
        moment = _moment(records.read(file).started)
    except (records.RecordError, FileNotFoundError):
        moment = None
    if moment is None:
        moment = datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC)
    return (now - moment).total_seconds() / 86_400


def _moment(started: str) -> datetime.datetime | None:
    """Return when a record was started, or None where it does not say so."""
    try:
        moment = datetime.datetime.fromisoformat(started)
        return moment.astimezone(datetime.UTC) if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    except (ValueError, OverflowError):
        return None
