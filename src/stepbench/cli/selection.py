"""Which configured cells a command is about: by experiment, axis, and the quality of their numbers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.state import State, States

if TYPE_CHECKING:
    from stepbench.reporting.marks import Mark

QUALITIES = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Selected:
    """A configured cell.

    Attributes:
        cell: the cell.
        path: its record, relative to the root.
        state: of its record.
        quality: of its numbers, A to D; None where it has no fresh record with numbers.
        warnings: about its numbers, from which the quality follows.
    """

    cell: Cell
    path: str
    state: State
    quality: str | None
    warnings: tuple[Mark, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a command select cells."""
    parser.add_argument(
        "--where", action="append", default=[], metavar="AXIS=VALUE", help="only cells with this value; repeatable"
    )
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help="only these experiments (default: all)")


def select(states: States, options: argparse.Namespace) -> Iterator[Selected]:
    """Yield the configured cells that the options ask for, in the order of measurement within each experiment.

    With `options.quality` only those whose numbers have this quality or a worse one.

    Raises:
        ValueError: an experiment or an axis is unknown, or a value is not valid.
    """
    bench = states.bench
    wanted = dict(_condition(text) for text in options.where)
    names = [experiments.load(name).name for name in options.experiments] or bench.names
    known = {axis.name for name in names for axis in cells.axes(experiments.load(name).cell)}
    if unknown := sorted(wanted.keys() - known):
        raise ValueError(f"`--where` must name an axis, got {unknown[0]!r}; valid are {', '.join(sorted(known))}")
    for name in names:
        axes = {axis.name: axis for axis in cells.axes(experiments.load(name).cell)}
        grid = [
            cell
            for cell in bench.grid(name)
            if all(key in axes and getattr(cell, key) == axes[key].parse(text) for key, text in wanted.items())
        ]
        warnings = _warnings(states, name, grid)
        for cell in grid:
            found = of(states, cell, warnings)
            if options.quality is None or (found.quality or "") >= options.quality:
                yield found


def of(states: States, cell: Cell, warnings: dict[str, tuple[Mark, ...]] | None = None) -> Selected:
    """Return one cell, in the configured grid or not."""
    from stepbench.reporting import marks  # 0.1 s, of numpy

    found = _warnings(states, cell.experiment, [cell]) if warnings is None else warnings
    path = str(states.bench.path(cell))
    about = found.get(path)
    quality = None if about is None else marks.quality(about)
    return Selected(cell, path, states.of(cell), quality, about or ())


def _warnings(states: States, name: str, grid: list[Cell]) -> dict[str, tuple[Mark, ...]]:
    from stepbench.reporting import frames, quality  # 0.2 s

    return quality.by_path(frames.load(states, experiments.load(name), grid)) if grid else {}


def _condition(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise ValueError(f"`--where` must be AXIS=VALUE, got {text!r}")
    return key, value
