"""The files of one experiment: tables, figures and findings, each with the JSON that the writeup is made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepbench.reporting import figures, findings, general_findings, tables
from stepbench.reporting.findings import Finding
from stepbench.reporting.frames import Results
from stepbench.reporting.tables import Table


def folder_of(machine: str, kind: str, experiment: str) -> str:
    """Return where the `tables` or `figures` of an experiment lie, relative to the root."""
    return f"results/{machine}/{kind}/{experiment}"


def findings_file(machine: str, experiment: str) -> str:
    """Return the file of an experiment's findings, relative to the root."""
    return f"results/{machine}/findings/{experiment}.json"


def find(experiment: Any, results: Results, shown: Mapping[str, Table] | None = None) -> list[Finding]:
    """Return an experiment's own findings, with their scope, and those that are said of every experiment.

    Args:
        experiment: which one.
        results: its results; nothing is found of points whose numbers are impossible or wrong.
        shown: its tables, where they have been made.
    """
    shown = experiment.tabulate(results) if shown is None else shown
    own = findings.scoped(experiment.find(results.sound()), results.groups())
    return [*own, *general_findings.find(results, shown.values())]


def render(experiment: Any, results: Results, root: Path) -> None:
    """Write the tables, figures and findings of an experiment below `root`."""
    machine, name = results.machine, experiment.name
    shown = experiment.tabulate(results)
    tables.write(shown, root, folder_of(machine, "tables", name), results.axes)
    figures.write(experiment.plot(results), root / folder_of(machine, "figures", name))
    findings.write(find(experiment, results, shown), root / findings_file(machine, name))
