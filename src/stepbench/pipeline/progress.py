"""Where a long run is: which cell, how many are left, and about how long the rest will take."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from stepbench.pipeline import planning, records
from stepbench.pipeline.bench import STATE_FOLDER
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.state import States
from stepbench.process import storage

# What was looked up when the run's first cell began: with thousands of cells it takes seconds, which no later one pays.
NOTE = Path(STATE_FOLDER, "progress.json")


class Progress:
    """One line before a cell and one after it, on standard error.

    The estimate takes the time that cells of the same experiment and size took on this machine before, in whatever
    version of the code, and leaves out what no earlier cell resembles.

    Args:
        states: those of the configuration.
        cell: the one that is measured.
        run: what tells this run from others; None where there is none, and all is looked up anew.
    """

    def __init__(self, states: States, cell: Cell, run: str | None = None) -> None:
        self._states, self._cell, self._run = states, cell, run
        self._path = str(states.bench.path(cell))

    def begin(self) -> None:
        """Say which cell is measured and what is left after it."""
        self._note = self._known() or self._looked_up()
        waiting: dict[str, str] = self._note["waiting"]
        waiting.pop(self._path, None)
        position = self._note["total"] - len(waiting)
        left = _left(list(waiting.values()), self._note["durations_s"])
        _say(f"[{position}/{self._note['total']}] measuring {self._cell.experiment} {self._cell.name}{left}")

    def end(self, record: records.Record) -> None:
        """Say how it went."""
        outcome = f"{record.duration_s:.1f} s" if record.ok else f"{record.status}: {record.reason}"
        _say(f"        measured {self._cell.experiment} {self._cell.name}: {outcome}")
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
        return {"run": self._run, "total": found.total, "waiting": waiting, "durations_s": found.durations_s}


def _left(kinds: list[str], known: dict[str, list[float]]) -> str:
    if not kinds:
        return " (the last one)"
    seconds, unlike = planning.estimate(kinds, known)
    if unlike == len(kinds):
        return f" ({len(kinds)} left)"
    more = f" and {unlike} unlike any before" if unlike else ""
    return f" ({len(kinds)} left, about {planning.duration(seconds)}{more})"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
