"""What an experiment declares.

An experiment is one module in this package that defines `EXPERIMENT`. Its `measure` imports torch, models, kernels,
parallel and measure inside itself, so that the Snakefile can be read without them; `tabulate`, `plot` and `find` import
stepbench.reporting the same way.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import stepbench.experiments
from stepbench.measure.measurement import Measurement, Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stepbench.data.shards import ShardSet
    from stepbench.reporting.frames import Results
    from stepbench.reporting.tables import Table


@dataclass(frozen=True)
class Experiment:
    """One question, its grid's axes, and how its cells are measured and told.

    Attributes:
        name: the config key, the rules file, this module, the results folder, the caption and the target rule.
        title: its heading in the writeup.
        question: the question that it answers, one sentence.
        cell: the frozen dataclass of its axes.
        measure: takes a cell and a setting, and returns what was measured. Raises `UnsupportedError` for what the
            device cannot do; running out of memory and any other exception are turned into records by the caller.
        settings: the keys of config.yaml that it uses beside its cell (`protocol`, `vocabulary`, `data`, …); a change
            of one of these makes its records stale. The entry of `sizes` that the cell names is always used.
        table_names: the tables that `tabulate` returns, so that rules can name their files.
        tabulate: takes the experiment's results (`stepbench.reporting.frames`) and returns tables.
        figure_names: the figures that `plot` returns.
        plot: takes the results and returns figures by name.
        find: takes the results and returns findings, each a sentence made from the data.
        shards: takes a cell, the preset that it names and the seed, and returns the data set that it reads from disk,
            or None; where nothing is ever read, there is no such function.
        also_reads: experiments whose records its tables and figures look at beside its own.
    """

    name: str
    title: str
    question: str
    cell: type
    measure: Callable[[Any, Setting], Measurement]
    settings: tuple[str, ...]
    table_names: tuple[str, ...]
    tabulate: Callable[[Results], Sequence[Table]]
    figure_names: tuple[str, ...]
    plot: Callable[[Results], dict[str, Figure]]
    find: Callable[[Results], list[str]]
    also_reads: tuple[str, ...] = ()
    shards: Callable[[Any, Mapping[str, int], int], ShardSet | None] | None = None

    @property
    def module(self) -> str:
        """The dotted name of the module that declares it."""
        return f"{stepbench.experiments.__name__}.{self.name}"


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of all experiments: the modules of this package, less this one and those that several share."""
    found = {module.name for module in pkgutil.iter_modules(stepbench.experiments.__path__)}
    return tuple(sorted(name for name in found - {"experiment"} if not name.startswith("_")))


@functools.cache
def load(name: str) -> Experiment:
    """Return the experiment of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in names():
        raise ValueError(f"an experiment must be one of {', '.join(names())}, got {name!r}")
    return importlib.import_module(f"{stepbench.experiments.__name__}.{name}").EXPERIMENT
