"""What a run would measure, why, and about how long it would take; and the records that no grid contains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepbench.pipeline import config, durations
from stepbench.pipeline.bench import NO_EXPERIMENTS, Bench
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.state import States

MOST_GROUPS, MOST_REASONS = 10, 4


@dataclass(frozen=True)
class Waiting:
    """A configured cell that a run would measure.

    Attributes:
        path: its record, relative to the root.
        state: `missing`, `stale` or `failed`.
        reasons: why, if it has a record.
        kind: the experiment and the size, which cells of similar cost share.
        formula_s: about how long it takes by formula (`stepbench.pipeline.durations`), or None.
        nodes: on how many nodes.
    """

    path: str
    state: str
    reasons: tuple[str, ...]
    kind: str
    formula_s: float | None = None
    nodes: int = 1


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        total: number of configured cells.
        waiting: the cells that would be measured, in the order of config.yaml.
        durations_s: kind -> duration of each recorded cell of that kind on this machine, with any version of the code.
    """

    total: int
    waiting: tuple[Waiting, ...]
    durations_s: dict[str, list[float]]


def plan(states: States, names: Sequence[str] = ()) -> Plan:
    """Return the plan for all configured cells of these experiments, or of all experiments."""
    waiting: list[Waiting] = []
    recorded_s: dict[str, list[float]] = {}
    total = 0
    bench = states.bench
    for cell in (cell for name in names or bench.names for cell in bench.grid(name)):
        total += 1
        state = states.of(cell)
        if state.record is not None:
            recorded_s.setdefault(kind_of(cell), []).append(state.record.duration_s)
        if state.kind != "fresh":
            about = (kind_of(cell), durations.of(bench, cell), nodes_of(cell))
            waiting.append(Waiting(str(bench.path(cell)), state.kind, state.reasons, *about))
    return Plan(total, tuple(waiting), recorded_s)


def grouped(states: States, paths: Iterable[str], most: int = MOST_GROUPS) -> list[str]:
    """Return how many cells are to be measured for which reasons, a line for each set of reasons, the largest first.

    Args:
        states: those of the configuration.
        paths: the records to be measured, relative to the root.
        most: how many lines for stale and failed cells; the last one counts what the others leave out.
    """
    found = [(cell.experiment, states.of(cell)) for cell in map(states.bench.locate, paths)]
    kinds = Counter(state.kind for _, state in found)
    if not found:
        return []
    lines = [f"{len(found)} cells to measure: {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}"]
    why: dict[tuple[str, ...], list[str]] = {}
    for experiment, state in found:
        if state.kind != "missing":
            why.setdefault(state.reasons or (f"{state.kind}, and asked for again",), []).append(experiment)
    groups = sorted(why.items(), key=lambda group: -len(group[1]))
    for reasons, names in groups[:most]:
        more = f"; and {len(reasons) - MOST_REASONS} more reasons" if len(reasons) > MOST_REASONS else ""
        told = "; ".join(reasons[:MOST_REASONS])
        lines.append(f"{len(names)} ({', '.join(dict.fromkeys(names))}): {told}{more}")
    if left := sum(len(names) for _, names in groups[most:]):
        lines.append(f"{left} for other reasons; `stepbench plan` lists all")
    return lines


def kind_of(cell: Cell) -> str:
    """Return the key that cells of similar cost share."""
    return f"{cell.experiment} {getattr(cell, 'size', getattr(cell, 'preset', ''))}".rstrip()


def nodes_of(cell: Cell) -> int:
    """Return on how many nodes a cell is measured."""
    return int(getattr(cell, "nodes", 1))


@dataclass(frozen=True)
class Estimate:
    """About how long some cells take.

    Attributes:
        seconds: of all of which something is known, one cell after the other.
        by_formula: how many of them have no earlier duration, but a formula.
        unknown: how many have neither.
        held_s: for how long nodes are held: with the start of each cell, and twice where a cell takes two nodes.
    """

    seconds: float
    by_formula: int
    unknown: int
    held_s: float


def estimate(waiting: Sequence[Waiting], durations_s: Mapping[str, Sequence[float]]) -> Estimate:
    """Return about how long these cells take: as long as recorded ones of their kind did, or else by formula."""
    seconds, held_s, by_formula, unknown = 0.0, 0.0, 0, 0
    for each in waiting:
        if earlier := durations_s.get(each.kind):
            own, start = sum(earlier) / len(earlier), durations.START_S
        elif each.formula_s is not None:
            own, start = each.formula_s, 0.0  # which counts the start
            by_formula += 1
        else:
            unknown += 1
            continue
        seconds += own
        held_s += (start + own) * each.nodes
    return Estimate(seconds, by_formula, unknown, held_s)


def first_note(states: States) -> str:
    """Return what a first report says of itself: how many cells it has, which it lacks, and for about how long."""
    found = plan(states)
    have = found.total - len(found.waiting)
    missing = Counter(Path(each.path).parent.name for each in found.waiting)
    names = ", ".join(f"{name} {count}" for name, count in missing.items())
    left = duration(estimate(found.waiting, found.durations_s).seconds)
    return (
        f"A first report, with {have} of {found.total} cells. Missing: {names}; about {left} of measurement. "
        "With them make report writes the whole one, report/writeup.html."
    )


def by_formula(bench: Bench, scale: str) -> Estimate:
    """Return about how long all cells of another scale take, by formula alone."""
    other = Bench({**bench.settings, "scale": scale}, root=bench.root, schema=bench.schema, checked=True)
    cells = [Waiting("", "missing", (), "", durations.of(other, cell), nodes_of(cell)) for cell in other.cells]
    return estimate(cells, {})


def duration(seconds: float) -> str:
    """Return a readable duration: `80 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def unused(bench: Bench) -> dict[str, list[str]]:
    """Return section -> the sizes or presets that no grid of any scale uses; a size is measured only by a grid."""
    grids = bench.settings["experiments"].values()
    products = [product for scales in grids for grid in scales.values() for product in grid or ()]
    found = {}
    for axis, (section, *_) in config.NAMED.items():  # models are there to be used by whoever wants one
        used = {name for product in products for name in product.get(axis, ())}
        if names := [name for name in bench.settings.get(section, {}) if name not in used]:
            found[section] = names
    return found


def left_over(bench: Bench) -> list[Path]:
    """Return the paths of this machine's records that no configured grid contains, relative to the root."""
    configured = {Path(path) for path in bench.paths(*bench.names)}
    return [path for path in recorded(bench) if path not in configured]


def recorded(bench: Bench) -> list[Path]:
    """Return the paths of all records of this machine, relative to the root, in the grid or not."""
    home = bench.root / "results" / bench.machine
    found = (path for path in home.glob("*/*.json") if path.parent.name not in NO_EXPERIMENTS)
    return sorted(path.relative_to(bench.root) for path in found)
