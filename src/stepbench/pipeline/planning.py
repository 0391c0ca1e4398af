"""What would be measured, why, and about how long it would take; and which records no grid asks for any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepbench.pipeline.bench import Bench
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.state import States

# Folders of a machine that hold no records.
NO_EXPERIMENTS = ("logs", "tables", "figures", "findings")


@dataclass(frozen=True)
class Waiting:
    """A configured cell that a run would measure.

    Attributes:
        path: its record, relative to the root.
        state: `missing`, `stale` or `failed`.
        reasons: why, for those that have a record.
        kind: what cells of similar cost share: the experiment and the size.
    """

    path: str
    state: str
    reasons: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        total: how many cells are configured.
        waiting: those that would be measured, in the order of config.yaml.
        durations_s: kind -> how long each cell of that kind took on this machine, in whatever version of the code.
    """

    total: int
    waiting: tuple[Waiting, ...]
    durations_s: dict[str, list[float]]


def plan(states: States, names: Sequence[str] = ()) -> Plan:
    """Look at every configured cell of these experiments, or of all."""
    waiting: list[Waiting] = []
    durations: dict[str, list[float]] = {}
    total = 0
    bench = states.bench
    for cell in (cell for name in names or bench.names for cell in bench.grid(name)):
        total += 1
        state = states.of(cell)
        if state.record is not None:
            durations.setdefault(kind_of(cell), []).append(state.record.duration_s)
        if state.kind != "fresh":
            waiting.append(Waiting(str(bench.path(cell)), state.kind, state.reasons, kind_of(cell)))
    return Plan(total, tuple(waiting), durations)


def kind_of(cell: Cell) -> str:
    """Return what cells of similar cost share."""
    return f"{cell.experiment} {getattr(cell, 'size', getattr(cell, 'preset', ''))}".rstrip()


def estimate(kinds: Sequence[str], durations_s: Mapping[str, Sequence[float]]) -> tuple[float, int]:
    """Return the seconds that cells of these kinds should take, and for how many of them no earlier one is known."""
    known = [durations for kind in kinds if (durations := durations_s.get(kind))]
    return sum(sum(durations) / len(durations) for durations in known), len(kinds) - len(known)


def duration(seconds: float) -> str:
    """Return a duration for people: `80 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def left_over(bench: Bench) -> list[Path]:
    """Return this machine's records that no configured grid asks for, relative to the root; nothing is removed."""
    asked = {Path(path) for path in bench.paths(*bench.names)}
    return [path for path in recorded(bench) if path not in asked]


def recorded(bench: Bench) -> list[Path]:
    """Return this machine's records that there are, relative to the root, in the grid or not."""
    home = bench.root / "results" / bench.machine
    found = (path for path in home.glob("*/*.json") if path.parent.name not in NO_EXPERIMENTS)
    return sorted(path.relative_to(bench.root) for path in found)
