"""All measurements of this machine that are known: the records of its cells, and those of their histories."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import history, planning, records
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.history import Entry
from stepbench.pipeline.records import Record
from stepbench.pipeline.state import States
from stepbench.reporting.columns import axis_words
from stepbench.reporting.points import REPLICATE


@dataclass(frozen=True)
class Known:
    """One measurement with numbers.

    Attributes:
        record: what was measured.
        path: its file, relative to the root.
        fresh: whether it was made by today's code, settings and software.
    """

    record: Record
    path: str
    fresh: bool


@dataclass(frozen=True)
class Point:
    """A point of an experiment's grid, the replicates together.

    Attributes:
        experiment: its name.
        values: axis -> value, without the replicate.
    """

    experiment: str
    values: tuple[tuple[str, Any], ...]

    @property
    def words(self) -> str:
        """The axes that differ from their defaults, as people read them."""
        return ", ".join(f"{axis_words(axis)} {axis_words(value)}" for axis, value in self._unusual())

    @property
    def text(self) -> str:
        """The axes that differ from their defaults, as a command takes them."""
        return ",".join(f"{axis}={_text(value)}" for axis, value in self._unusual())

    def _unusual(self) -> Iterator[tuple[str, Any]]:
        defaults = {each.name: each.default for each in dataclasses.fields(experiments.load(self.experiment).cell)}
        return ((axis, value) for axis, value in self.values if value != defaults[axis])


def load(states: States) -> dict[Point, list[Known]]:
    """Return all measurements of each point, the earliest first.

    A record of before an axis was added counts for the cell in which that axis has its default.
    """
    found: dict[Point, list[Known]] = {}
    for cell, path, record in _measured(states):
        values = tuple((axis, value) for axis, value in cell.values.items() if axis != REPLICATE)
        known = Known(record, path.as_posix(), _is_fresh(states, cell, record))
        found.setdefault(Point(record.experiment, values), []).append(known)
    return {point: sorted(each, key=lambda known: known.record.started) for point, each in found.items()}


def earlier(states: States, cell: Cell) -> list[Entry]:
    """Return the measurements of one cell that do not stand in its file, the earliest first."""
    standing = states.bench.path(cell)
    found = [Entry(path, record) for each, path, record in _measured(states) if each == cell and path != standing]
    return sorted(found, key=lambda entry: entry.record.started)


def _measured(states: States) -> Iterator[tuple[Cell, Path, Record]]:
    """Yield every record with numbers of this machine: its cell, its file relative to the root, and what is in it."""
    bench = states.bench
    histories = history.recorded(bench.root / "results" / bench.machine)
    replaced = [file for path in histories for file in sorted(history.folder(path).glob("*.json"))]
    for path in (*(bench.root / path for path in planning.recorded(bench)), *replaced):
        try:
            record = records.read(path)
            cell = _completed(record)
        except (records.RecordError, FileNotFoundError, ValueError, TypeError):
            continue  # the state of its cell, or `stepbench history`, says what is wrong with it
        if record.ok:
            yield cell, path.relative_to(bench.root), record


def _completed(record: Record) -> Cell:
    """Return a record's cell with the default of each axis that it does not have.

    Raises:
        ValueError: there is no such experiment, or a value is not valid.
        TypeError: it has an axis that is none today, or lacks one that has no default.
    """
    cell: Cell = experiments.load(record.experiment).cell(**record.cell)
    for axis in cell.axes():
        axis.check(getattr(cell, axis.name))
    return cell


def _is_fresh(states: States, cell: Cell, record: Record) -> bool:
    try:
        return bool(record.fingerprint == states.fingerprint(cell))
    except ValueError:  # config.yaml has no such size any more
        return False


def _text(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
