"""Where a long run is: which cell, how many are left, and about how long the rest will take."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from stepbench import cells, records
from stepbench.bench import Bench


class Progress:
    """One line before a cell and one after it, on standard error.

    The estimate takes the time that cells of the same experiment and size took on this machine before, in whatever
    version of the code, and leaves out what no earlier cell resembles.
    """

    def __init__(self, bench: Bench, name: str, cell: Any) -> None:
        self._bench, self._name, self._cell = bench, name, cell

    def begin(self) -> None:
        """Say which cell is measured and what is left after it."""
        waiting: list[tuple[str, Any]] = []
        known: dict[tuple[str, str], list[float]] = {}
        total = 0
        for name in self._bench.names:
            for cell in self._bench.grid(name):
                total += 1
                state = self._bench.state(name, cell)
                if state.record is not None:
                    known.setdefault(_kind(name, cell), []).append(state.record.duration_s)
                if state.kind != "fresh" and (name, cell) != (self._name, self._cell):
                    waiting.append((name, cell))
        position = total - len(waiting)
        _say(f"[{position}/{total}] measuring {self._name} {cells.name(self._cell)}{_left(waiting, known)}")

    def end(self, record: records.Record) -> None:
        """Say how it went."""
        outcome = f"{record.duration_s:.1f} s" if record.ok else f"{record.status}: {record.reason}"
        _say(f"        measured {self._name} {cells.name(self._cell)}: {outcome}")


def _kind(name: str, cell: Any) -> tuple[str, str]:
    return name, getattr(cell, "size", "")


def _left(waiting: Sequence[tuple[str, Any]], known: dict[tuple[str, str], list[float]]) -> str:
    times = [known.get(_kind(name, cell), []) for name, cell in waiting]
    estimated = [sum(durations) / len(durations) for durations in times if durations]
    if not waiting:
        return " (the last one)"
    if not estimated:
        return f" ({len(waiting)} left)"
    unlike = len(waiting) - len(estimated)
    more = f" and {unlike} unlike any before" if unlike else ""
    return f" ({len(waiting)} left, about {_duration(sum(estimated))}{more})"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
