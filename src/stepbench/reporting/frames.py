"""Records as a frame: one row for each configured cell, whatever became of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells
from stepbench.pipeline.records import Record
from stepbench.pipeline.state import States
from stepbench.reporting import conditions, sense, statistics
from stepbench.reporting.marks import Mark
from stepbench.reporting.network import Network
from stepbench.reporting.peaks import Peaks

REPLICATE = "replicate"
MAX_REASONS = 1  # the list of cells without numbers has them all


@dataclass(frozen=True)
class Group:
    """The replicates of one point of the grid.

    Attributes:
        point: axis -> value, without `replicate`.
        rows: their rows of `Results.cells`.
        peaks: what the machine can reach.
    """

    point: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    peaks: Peaks = field(default_factory=Peaks)

    @functools.cached_property
    def marks(self) -> tuple[Mark, ...]:
        """What a reader should know about every number of this point; samples may carry marks of their own."""
        return (*conditions.find(self.records), *sense.find(self, self.peaks))

    @property
    def records(self) -> list[Record]:
        """The records that hold numbers of today's code and settings."""
        return [row["record"] for row in self.rows if row["state"] == "fresh" and row["status"] == "ok"]

    @property
    def paths(self) -> list[str]:
        """The files of the cells that have one, whatever is in it."""
        return [row["path"] for row in self.rows if row["state"] != "missing"]

    @property
    def status(self) -> str:
        """What became of the cells, such as `ok`, `oom` or `4 ok, 1 stale`."""
        labels = [label(row) for row in self.rows]
        if len(set(labels)) == 1:
            return labels[0]
        return ", ".join(f"{labels.count(each)} {each}" for each in dict.fromkeys(labels))

    @property
    def reason(self) -> str:
        """Why there are no numbers, or fewer than there should be."""
        found = list(dict.fromkeys(reason for row in self.rows for reason in why(row)))
        more = f" and {len(found) - MAX_REASONS} more" if len(found) > MAX_REASONS else ""
        return "; ".join(found[:MAX_REASONS]) + more

    def without(self, axis: str) -> Group:
        """Return the same point without one of its axes, for a sentence that names that one anyway."""
        return Group({each: value for each, value in self.point.items() if each != axis}, self.rows, self.peaks)

    def processes(self, key: str) -> list[list[float]]:
        """Return the samples `key` of each usable record that has them."""
        return processes(self.records, key)

    def summary(self, key: str) -> statistics.Summary | None:
        """Return the summary of the samples `key` with the point's own marks, or None where there are none."""
        found = self.processes(key)
        if not found:
            return None
        summary = statistics.summarize(found)
        return dataclasses.replace(summary, marks=(*summary.marks, *self.marks)) if self.marks else summary

    def scalar(self, key: str) -> Any:
        """Return the scalar `key`, the largest of the replicates', or None where none has it."""
        found = [record.scalars[key] for record in self.records if record.scalars.get(key) is not None]
        return max(found, default=None)


@dataclass(frozen=True)
class Results:
    """What an experiment's tables, figures and findings are made of.

    Attributes:
        cells: one row for each configured cell: its axes, `path` (relative to the root), `state` (`fresh`, `stale`,
            `missing` or `failed`), `reasons` (a tuple), `status` (the record's, or None) and `record` (or None). A
            record that is stale or cannot be believed is here, so that it can be named; `usable` leaves it out.
        peaks: what the machine can reach, measured and by its vendor.
        machine: the machine's name.
        axes: the names of the axes, in the cell's order.
        others: the results of the experiments that this one also reads, by name.
        network: what a projection supposes, or None where config.yaml states none.
    """

    cells: pd.DataFrame
    peaks: Peaks
    machine: str
    axes: tuple[str, ...] = field(default=())
    others: Mapping[str, Results] = field(default_factory=dict)
    network: Network | None = None

    @property
    def usable(self) -> pd.DataFrame:
        """The rows that hold numbers of today's code and settings."""
        return self.cells[(self.cells["state"] == "fresh") & (self.cells["status"] == "ok")]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `cells`."""
        return [{str(key): value for key, value in row.items()} for row in self.cells.to_dict("records")]

    def groups(self) -> list[Group]:
        """Return the points of the grid in its order, the replicates of each together."""
        names = [axis for axis in self.axes if axis != REPLICATE]
        found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in self.rows:
            found.setdefault(tuple(row[name] for name in names), []).append(row)
        return [Group(dict(zip(names, each, strict=True)), tuple(rows), self.peaks) for each, rows in found.items()]


def load(states: States, experiment: Any) -> Results:
    """Return the results of an experiment on this machine, and of those that it also reads."""
    peaks = Peaks.of(states)
    others = {name: _load(states, experiments.load(name), peaks, {}) for name in experiment.reads}
    return _load(states, experiment, peaks, others)


def processes(records: Iterable[Record], key: str) -> list[list[float]]:
    """Return the samples `key` of each record that has them, one list for each process.

    Of samples by rank the slowest rank's counts at each step: the others wait for it.
    """
    found = []
    for record in records:
        values = record.samples.get(key)
        if values and isinstance(values[0], list):
            values = [max(step) for step in zip(*values, strict=True)]
        if values:
            found.append(values)
    return found


def label(row: Mapping[str, Any]) -> str:
    """Return what became of a cell in a word or two: its record's status, or why that does not count."""
    if row["state"] == "missing":
        return "not measured"
    if row["state"] == "stale":
        return "stale" if row["record"] is not None else "unreadable"
    return str(row["status"])


def why(row: Mapping[str, Any]) -> Sequence[str]:
    """Return the reasons why a cell gives no number; none where it does or where nothing was measured yet."""
    if row["state"] == "stale":
        return tuple(row["reasons"])
    record = row["record"]
    return (record.reason,) if record is not None and record.reason else ()


def _load(states: States, experiment: Any, peaks: Peaks, others: Mapping[str, Results]) -> Results:
    axes = tuple(axis.name for axis in cells.axes(experiment.cell))
    rows = []
    bench = states.bench
    for cell in bench.grid(experiment.name):
        state = states.of(cell)
        rows.append(
            {
                **cell.values,
                "path": str(bench.path(cell)),
                "state": state.kind,
                "reasons": state.reasons,
                "status": state.record.status if state.record else None,
                "record": state.record,
            }
        )
    # Objects, all of them: pandas would make 1.0 and NaN of the 1 and None of an optional axis.
    frame = pd.DataFrame(rows, columns=[*axes, "path", "state", "reasons", "status", "record"], dtype=object)
    network = Network.of(bench.settings.get("network"))
    return Results(cells=frame, peaks=peaks, machine=bench.machine, axes=axes, others=others, network=network)
