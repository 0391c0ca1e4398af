"""The progress of a long run: the current cell, how many are left, and about how long they will take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepbench import terminal
from stepbench.pipeline import history, planning, records
from stepbench.pipeline.bench import STATE_FOLDER
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.state import States
from stepbench.process import storage

# The plan, computed by the run's first cell and reused by the others: with thousands of cells it takes seconds.
NOTE = Path(STATE_FOLDER, "progress.json")


class Progress:
    """Prints one line before a cell and one after it, on standard error.

    The estimate uses the durations of earlier cells of the same experiment and size on this machine, with any version
    of the code. It excludes cells of a kind that was never measured.

    Args:
        states: the states of the configured cells.
        cell: the cell to measure.
        run: identifies the run; None outside a run, where the plan is computed again.
        records: the records that the run measures; None for those of all configured cells that are not fresh.
    """

    def __init__(
        self, states: States, cell: Cell, run: str | None = None, records: Sequence[str] | None = None
    ) -> None:
        self._states, self._cell, self._run, self._records = states, cell, run, records
        self._path = str(states.bench.path(cell))

    def begin(self) -> None:
        """Print which cell is measured and what is left after it."""
        self._note = self._known() or self._looked_up()
        waiting: dict[str, str] = self._note["waiting"]
        waiting.pop(self._path, None)
        position = self._note["total"] - len(waiting)
        left = _left(list(waiting.values()), self._note["durations_s"])
        _say(f"[{position}/{self._note['total']}] measuring {self._cell.experiment} {self._cell.name}{left}")

    def end(self, record: records.Record, choice: history.Choice | None = None) -> None:
        """Print the outcome and, where a fresh record stood in the file before, which of the two is kept."""
        outcome = f"{record.duration_s:.1f} s" if record.ok else f"{record.status}: {record.reason}"
        _say(f"        measured {self._cell.experiment} {self._cell.name}: {outcome}")
        if choice is not None:
            _say(f"        {choice}")
        self._note["durations_s"].setdefault(planning.kind_of(self._cell), []).append(record.duration_s)
        storage.write_atomically(self._states.bench.root / NOTE, json.dumps(self._note))

    def _known(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self._states.bench.root / NOTE).read_text(encoding="utf-8"))
            return found if self._run is not None and found["run"] == self._run else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _looked_up(self) -> dict[str, Any]:
        found = planning.plan(self._states)
        waiting = {each.path: each.kind for each in found.waiting}
        if self._records is not None:
            waiting = {path: planning.kind_of(self._states.bench.locate(path)) for path in self._records}
        total = found.total if self._records is None else len(waiting)
        return {"run": self._run, "total": total, "waiting": waiting, "durations_s": found.durations_s}


def _left(kinds: list[str], known: dict[str, list[float]]) -> str:
    if not kinds:
        return " (the last one)"
    waiting = [planning.Waiting("", "missing", (), kind) for kind in kinds]  # by recorded durations alone
    estimate = planning.estimate(waiting, known)
    if estimate.unknown == len(kinds):
        return f" ({len(kinds)} left)"
    more = f", without {estimate.unknown} of unknown duration" if estimate.unknown else ""
    return f" ({len(kinds)} left, about {planning.duration(estimate.seconds)}{more})"


def _say(line: str) -> None:
    terminal.say(line, sign="")
