"""report/explore.html: every fresh record of every known machine, drawn as the reader chooses, offline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepbench.comparison.machines import Machine
from stepbench.experiments import experiment as experiments
from stepbench.pipeline.records import Record
from stepbench.reporting import embedded, marks, templates
from stepbench.reporting.columns import axis_words
from stepbench.reporting.frames import Results
from stepbench.reporting.peaks import Peaks
from stepbench.reporting.points import Group

VENDOR = Path(__file__).parent / "vendor"
LIBRARIES = ("d3.min.js", "plot.umd.min.js")
MACHINE = "machine"
DIGITS = 5  # of a value in the page


def page(machines: Sequence[Machine], folder: Path) -> str:
    """Return the page.

    Args:
        machines: the first one is this.
        folder: report/templates.
    """
    return show(machines[0].name, collect(machines), folder)


def show(name: str, found: Mapping[str, Any], folder: Path) -> str:
    """Return the page of what `collect` returned; `name` is that of this machine."""
    return (
        templates.environment(folder)
        .get_template("explore.html.j2")
        .render(
            title=f"Records of {name}",
            points=sum(len(each["points"]) for each in found["experiments"].values()),
            data=embedded.pack(found),
            **templates.script(folder, "explore.js", [VENDOR / library for library in LIBRARIES]),
        )
    )


def collect(machines: Sequence[Machine]) -> dict[str, Any]:
    """Return what the page draws, as values.

    Returns:
        `experiments`: name -> `title`, `axes`, `metrics` and `points`. A point is a list: its values along the axes
        (first the machine), a metric's place -> `[value, low, high, warnings]`, the path of its first record, and
        how many records it has.
    """
    made: dict[str, Any] = {}
    for machine in machines:
        by_name: dict[str, list[Record]] = {}
        for record in machine.records:
            by_name.setdefault(record.experiment, []).append(record)
        peaks = _peaks(machine.records)
        for name, records in by_name.items():
            experiment = experiments.load(name)
            held = made.setdefault(name, {"title": experiment.title, "axes": [], "metrics": [], "points": []})
            for group in _groups(machine, experiment, records, peaks):
                axes = {MACHINE: machine.name} | {axis: axis_words(value) for axis, value in group.point.items()}
                held["axes"] = held["axes"] or list(axes)
                values = {_place(held["metrics"], metric): value for metric, value in _metrics(group).items()}
                if values:
                    held["points"].append([list(axes.values()), values, group.paths[0], len(group.records)])
    return {"experiments": {name: each for name, each in made.items() if each["points"]}}


def _peaks(records: Sequence[Record]) -> Peaks:
    facts = records[0].environment if records else {}
    cores = facts.get("cpu_cores") if facts.get("device") == "cpu" else None
    return Peaks.of(records, str(facts.get("device_name", "")), cores)


def _groups(machine: Machine, experiment: Any, records: Iterable[Record], peaks: Peaks) -> list[Group]:
    rows = []
    for record in records:
        cell = experiment.cell(**record.cell)
        path = f"results/{machine.name}/{experiment.name}/{cell.name}.json"
        more = {"path": path, "state": "fresh", "reasons": (), "status": record.status, "record": record}
        rows.append({**cell.values, **more})
    axes = tuple(axis for axis in (rows[0] if rows else ()) if axis in experiment.cell.__dataclass_fields__)
    return Results(rows, peaks, machine.name, axes).groups()


def _metrics(group: Group) -> dict[str, list[Any]]:
    """Return the numbers of a point: the median of each kind of samples, each scalar, and tokens per second."""
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for record in group.records for key in record.samples):
        summary = group.summary(key)
        if summary is not None and math.isfinite(summary.median):
            found[key] = [*map(_short, (summary.median, summary.low, summary.high)), marks.text(summary.marks)]
    tokens, step = group.scalar("tokens_per_step"), group.summary("step_s")
    if tokens and step is not None and step.median:
        bounds = (tokens / bound if bound else None for bound in (step.high, step.low))
        found["tokens_per_s"] = [*map(_short, (tokens / step.median, *bounds)), marks.text(step.marks)]
    for key in dict.fromkeys(key for record in group.records for key in record.scalars):
        values = [record.scalars.get(key) for record in group.records]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            value = group.scalar(key)
            if math.isfinite(value):
                found.setdefault(key, [_short(value), None, None, marks.text(marks.fatal(group.marks))])
    return found


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


def _place(metrics: list[str], name: str) -> int:
    if name not in metrics:
        metrics.append(name)
    return metrics.index(name)
