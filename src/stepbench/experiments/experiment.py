"""An experiment is a folder of this package; this module finds it and imports its parts when they are asked for.

| file | what it holds |
|---|---|
| `cell.py` | `Cell`, the frozen dataclass of its axes; `TITLE`, `QUESTION`, `SETTINGS`, `READS` |
| `measure.py` | `measure(cell, setting) -> Measurement` |
| `tables.py` | each public function is a table: it takes the results and returns one; its name is the table's |
| `figures.py` | each public function is a figure, likewise |
| `findings.py` | `find(results)` returns its findings |

Nothing is registered. Reading a Snakefile imports the cells alone: torch and matplotlib take seconds.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from stepbench.pipeline import cells
from stepbench.pipeline.cells import Cell

PACKAGE = "stepbench.experiments"
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Experiment:
    """One question, and where its parts are.

    Attributes:
        name: the folder, the config key, the rules file, the results folder, the caption and the target rule.
        title: its heading in the writeup.
        question: the question that it answers, one sentence.
        cell: the frozen dataclass of its axes.
        settings: the keys of config.yaml that it uses beside its cell (`protocol`, `vocabulary`, `data`, …); a change
            of one of these makes its records stale. The entry of `sizes` that the cell names is always used.
        reads: experiments whose records its tables, figures and findings look at beside its own.
    """

    name: str
    title: str
    question: str
    cell: type
    settings: tuple[str, ...]
    reads: tuple[str, ...]

    @property
    def module(self) -> str:
        """The dotted name of its package."""
        return f"{PACKAGE}.{self.name}"

    @property
    def measure(self) -> Callable[..., Any]:
        """The function that measures a cell; imports torch."""
        return self._part("measure").measure

    @property
    def find(self) -> Callable[[Any], list[Any]]:
        """The function that returns the findings of its results."""
        return self._part("findings").find

    @functools.cached_property
    def table_names(self) -> tuple[str, ...]:
        """The names of its tables, read without importing anything."""
        return _public_functions(FOLDER / self.name / "tables.py")

    @functools.cached_property
    def figure_names(self) -> tuple[str, ...]:
        """The names of its figures, read without importing anything."""
        return _public_functions(FOLDER / self.name / "figures.py")

    def tabulate(self, results: Any) -> dict[str, Any]:
        """Return the tables of its results by name."""
        module = self._part("tables")
        return {name: getattr(module, name)(results) for name in self.table_names}

    def plot(self, results: Any) -> dict[str, Any]:
        """Return the figures of its results by name."""
        module = self._part("figures")
        return {name: getattr(module, name)(results) for name in self.figure_names}

    @property
    def shards(self) -> Callable[..., Any] | None:
        """The function that returns the data set that a cell reads from disk, where there is a `data_set.py`."""
        if not (FOLDER / self.name / "data_set.py").exists():
            return None
        return self._part("data_set").find

    @property
    def has_summary(self) -> bool:
        """Whether it contributes to the report's summary: whether there is a `summary.py`."""
        return (FOLDER / self.name / "summary.py").exists()

    @property
    def summarize(self) -> Callable[[Any], Any] | None:
        """The function that returns what it contributes to the report's summary, where there is a `summary.py`."""
        return self._part("summary").summarize if self.has_summary else None

    def _part(self, part: str) -> ModuleType:
        return importlib.import_module(f"{self.module}.{part}")


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of all experiments: the folders that hold a `cell.py`."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/cell.py")))


@functools.cache
def load(name: str) -> Experiment:
    """Return the experiment of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in names():
        raise ValueError(f"an experiment must be one of {', '.join(names())}, got {name!r}")
    found = importlib.import_module(f"{PACKAGE}.{name}.cell")
    return Experiment(name, found.TITLE, found.QUESTION, found.Cell, found.SETTINGS, found.READS)


def cell_at(path: Path) -> Cell:
    """Return the cell of a record's path: `…/<experiment>/<cell>.json`.

    Raises:
        ValueError: there is no such experiment, or the name is not canonical.
    """
    found: Cell = cells.parse(load(path.parent.name).cell, path.name.removesuffix(".json"))
    return found


def _public_functions(file: Path) -> tuple[str, ...]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return tuple(node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"))
