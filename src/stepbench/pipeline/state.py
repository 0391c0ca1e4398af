"""The state of each cell's record: fresh, stale, missing or failed, and why."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import fingerprint, reach, records
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.fingerprint import Difference
from stepbench.process import allocator, variables


@dataclass(frozen=True)
class State:
    """The state of a cell's record.

    Attributes:
        kind: `fresh`, `missing`, `stale`, or `failed` (a valid record of a failure that will be retried).
        differences: the differences of a stale record's fingerprint from the current one.
        reason: why it is stale or failed, if not because of the fingerprint.
        record: the record, if it could be read.
    """

    kind: str
    differences: tuple[Difference, ...] = ()
    reason: str | None = None
    record: records.Record | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is stale or failed, one sentence per reason."""
        return (*map(str, self.differences), *([self.reason] if self.reason else []))


class States:
    """The states of a bench's cells; a record is read again only when its file changes."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._sources: dict[tuple[str, ...], dict[str, str]] = {}
        self._known: dict[Cell, tuple[Any, State]] = {}
        self._elsewhere: dict[str, Any] | None = None

    def of(self, cell: Cell) -> State:
        """Return the state of a cell's record."""
        path = self.bench.root / self.bench.path(cell)
        try:
            found = os.stat(path)  # noqa: PTH116 - called for every cell of a large grid
        except FileNotFoundError:
            return State("missing")
        except OSError:
            found = None
        identity = found and (found.st_ino, found.st_size, found.st_mtime_ns)
        if identity is None or (known := self._known.get(cell)) is None or known[0] != identity:
            known = (identity, self._look(cell))
            self._known[cell] = known
        return known[1]

    def _look(self, cell: Cell) -> State:
        path = self.bench.root / self.bench.path(cell)
        try:
            record = records.read(path)
        except FileNotFoundError:
            return State("missing")
        except records.RecordError as error:
            return State("stale", reason=str(error))
        if record.experiment != cell.experiment or record.cell != cell.values:
            reason = f"{path}: `cell` must be the one that the path names, got {record.cell}"
            return State("stale", reason=reason)
        if differences := fingerprint.difference(record.fingerprint, self.fingerprint(cell)):
            return State("stale", tuple(differences), record=record)
        if record.status in records.RETRIED and not self._ran_out_of_the_same_time(record):
            return State("failed", reason=f"{record.status}: {record.reason}", record=record)
        if record.kind == "predicted_oom" and not self.bench.trust_prediction:
            reason = f"`trust_prediction` is false now, and the cell was not started: {record.reason}"
            return State("failed", reason=reason, record=record)
        return State("fresh", record=record)

    def _ran_out_of_the_same_time(self, record: records.Record) -> bool:
        """Return whether a cell that took too long would have no more time now than it had then."""
        limit_s = self.bench.settings["limits"]["time_s"]
        return record.status == "timeout" and (record.protocol.get("time_limit_s") or 0) >= limit_s

    def fingerprint(self, cell: Cell) -> dict[str, Any]:
        """Return the cell's current fingerprint; source files are read once (see `forget`)."""
        definition = self.bench.definition(cell)
        roots = (f"{experiments.load(cell.experiment).module}.measure", *cell.modules(definition))
        if roots not in self._sources:
            memo, architecture = self.bench.memo("source"), self.bench.architecture
            self._sources[roots] = reach.source(*roots, memo=memo, architecture=architecture)
        return {
            fingerprint.SOURCE: self._sources[roots],
            "definition": definition,
            **self._software_and_machine(),
        }

    def forget(self) -> None:
        """Drop the cache: the next fingerprint reads the source files again, the next state the record."""
        self._sources.clear()
        self._known.clear()

    def _software_and_machine(self) -> dict[str, Any]:
        if self._elsewhere is None:
            host = self.bench.host
            self._elsewhere = {
                "software": {**host.software, "driver": host.driver},
                "machine": {
                    "device": host.device,
                    "device_name": host.device_name,
                    "device_count": host.device_count,
                    "threads": self.bench.threads,
                    "allocator": allocator.wanted(),
                    # Only where there are some, so that whoever sets none has the fingerprints of before.
                    **({"variables": set_here} if (set_here := variables.changing()) else {}),
                },
            }
        return self._elsewhere
