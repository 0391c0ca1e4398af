"""The files of one experiment: tables, figures and findings, each with the JSON that the writeup is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from matplotlib.figure import Figure

from stepbench.reporting import figures, findings, tables
from stepbench.reporting.findings import Finding
from stepbench.reporting.frames import Results
from stepbench.reporting.tables import Table


class Experiment(Protocol):
    """What rendering needs of an experiment; `stepbench.experiments.experiment.Experiment` has it."""

    @property
    def name(self) -> str:
        """Its folder."""

    @property
    def title(self) -> str:
        """Its heading."""

    @property
    def question(self) -> str:
        """The question that it answers."""

    @property
    def cell(self) -> type:
        """The dataclass of its axes."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Other experiments whose records it reads."""

    @property
    def table_names(self) -> tuple[str, ...]:
        """The names of its tables."""

    @property
    def figure_names(self) -> tuple[str, ...]:
        """The names of its figures."""

    @property
    def find(self) -> Callable[[Any], list[Finding]]:
        """The function that returns its findings."""

    def tabulate(self, results: Any) -> Mapping[str, Table]:
        """Return its tables by name."""

    def plot(self, results: Any) -> Mapping[str, Figure]:
        """Return its figures by name."""


def folder_of(machine: str, kind: str, experiment: str) -> str:
    """Return where the `tables` or `figures` of an experiment lie, relative to the root."""
    return f"results/{machine}/{kind}/{experiment}"


def findings_file(machine: str, experiment: str) -> str:
    """Return the file of an experiment's findings, relative to the root."""
    return f"results/{machine}/findings/{experiment}.json"


def find(experiment: Experiment, results: Results) -> list[Finding]:
    """Return an experiment's own findings and those that are said of every experiment."""
    return [*experiment.find(results), *findings.general(results)]


def render(experiment: Experiment, results: Results, root: Path) -> None:
    """Write the tables, figures and findings of an experiment below `root`."""
    machine, name = results.machine, experiment.name
    tables.write(experiment.tabulate(results), root, folder_of(machine, "tables", name))
    figures.write(experiment.plot(results), root / folder_of(machine, "figures", name))
    findings.write(find(experiment, results), root / findings_file(machine, name))
