"""The results of an experiment: one row for each configured cell, whatever became of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stepbench.pipeline import cells
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.records import Record
from stepbench.pipeline.state import States
from stepbench.reporting import conditions, sense
from stepbench.reporting.marks import Mark, fatal
from stepbench.reporting.peaks import Peaks
from stepbench.reporting.points import REPLICATE, Group, is_ok


@dataclass(frozen=True)
class Results:
    """What an experiment's tables, figures and findings are made of.

    Attributes:
        rows: one for each configured cell: its axes, `path` (relative to the root), `state` (`fresh`, `stale`,
            `missing` or `failed`), `reasons` (a tuple), `status` (the record's, or None) and `record` (or None). A
            record that is stale or unreadable has a row, so that it can be named; `Group.records` leaves it out.
        peaks: what the machine can reach, measured and by its vendor.
        machine: the machine's name.
        axes: the names of the axes, in the cell's order.
        others: the results of the experiments in `READS`, by name.
        settings: the configuration; what only one experiment's tables use (`network`) is read from it there.
    """

    rows: list[dict[str, Any]]
    peaks: Peaks
    machine: str
    axes: tuple[str, ...] = ()
    others: Mapping[str, Results] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def groups(self) -> list[Group]:
        """Return the points of the grid in its order, the replicates of each together."""
        names = [axis for axis in self.axes if axis != REPLICATE]
        found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in self.rows:
            found.setdefault(tuple(row[name] for name in names), []).append(row)
        return [Group(dict(zip(names, each, strict=True)), tuple(rows), self._check) for each, rows in found.items()]

    def group(self, **point: Any) -> Group | None:
        """Return the first point that has these values, or None."""
        return next((each for each in self.groups() if each.point.items() >= point.items()), None)

    def sound(self) -> Results:
        """Return the same without the points whose numbers are impossible or wrong, here and in `others`."""
        rows = [dict(row) for group in self.groups() if not fatal(group.marks) for row in group.rows]
        others = {name: each.sound() for name, each in self.others.items()}
        return dataclasses.replace(self, rows=rows, others=others)

    def _check(self, group: Group) -> tuple[Mark, ...]:
        # Load, clocks and paging change what a process timed: no prediction, no sum, no dtype.
        timed = [record for record in group.records if any(key.endswith("_s") for key in record.samples)]
        return (*conditions.find(timed), *sense.find(group, self.peaks))


def load(states: States, experiment: Any, grid: Iterable[Cell] | None = None) -> Results:
    """Return the results of an experiment on this machine, with those of the experiments that it reads.

    This is the only way in which a table, a figure or a finding gets at records.

    Args:
        states: the states of the cells.
        experiment: which one.
        grid: its cells; None for the configured ones.
    """
    bench = states.bench
    grid = bench.grid(experiment.name) if grid is None else grid
    own = dataclasses.replace(_load(states, grid), axes=_axes(experiment.cell))
    others = {name: _load(states, bench.grid(name)) for name in experiment.reads}
    records = [row["record"] for each in (own, *others.values()) for row in each.rows if is_ok(row)]
    cores = bench.host.cpu_cores if bench.device == "cpu" else None
    peaks = Peaks.of(records, bench.host.device_name, cores)
    others = {name: dataclasses.replace(each, peaks=peaks) for name, each in others.items()}
    return dataclasses.replace(own, peaks=peaks, others=others)


def with_record(results: Results, *records: Record) -> Results:
    """Return results as they are with another record of each cell, in the order of the rows, which count as fresh."""
    rows = [
        {**row, "state": "fresh", "reasons": (), "status": record.status, "record": record}
        for row, record in zip(results.rows, records, strict=True)
    ]
    return dataclasses.replace(results, rows=rows)


def _axes(cell_type: type) -> tuple[str, ...]:
    return tuple(axis.name for axis in cells.axes(cell_type))


def _load(states: States, grid: Iterable[Cell]) -> Results:
    bench = states.bench
    axes: tuple[str, ...] = ()
    rows = []
    for cell in grid:
        axes = _axes(type(cell))
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
    return Results(rows, Peaks(), bench.machine, axes, settings=bench.settings)
