"""The jobs that the rules' scripts run. They receive Snakemake's objects and do not import it."""

from __future__ import annotations

import datetime
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from stepbench.data import shards
from stepbench.experiments import experiment as experiments
from stepbench.pipeline import history, inputs, planning, progress, staleness
from stepbench.pipeline.bench import STATE_FOLDER, Bench
from stepbench.pipeline.config import SCHEMA
from stepbench.pipeline.state import State, States
from stepbench.pipeline.workflow import RUN_NOTE, end, one_line
from stepbench.process import interruption, lifeline, run, storage
from stepbench.process.attempt import Attempt


def bench_of(snakemake: Any) -> Bench:
    """Return the bench of a rule's script."""
    return _bench_of_job(snakemake.config, Path(snakemake.scriptdir).parent)


def _bench_of_job(settings: dict[str, Any], home: Path) -> Bench:
    interruption.leave_on_signals()
    gc.disable()  # a job is short and its imports stay alive: a fifth of its time
    return Bench(settings, root=Path.cwd(), schema=home / SCHEMA, files=[home / "config.yaml"], checked=True)


def measure(script: str, settings: str, record: str, attempt: Attempt, launcher: int) -> None:
    """Measure a cell in a process that has already been started.

    Args:
        script: the path of the calling script.
        settings: the file with the merged configuration.
        record: the path of the cell's record.
        attempt: the measuring process.
        launcher: the id of this process' parent before it waited for the host's devices.
    """
    if os.getppid() != launcher:  # the run has ended
        sys.exit(lifeline.ORPHANED_EXIT_CODE)
    try:
        merged = json.loads(Path(settings).read_text(encoding="utf-8"))
    except FileNotFoundError:
        end(f"{settings}, the settings of this run, is missing; start the run again", 1)
    states = States(_bench_of_job(merged, Path(script).parents[1]))
    cell = states.bench.locate(record)
    note = _run_note(states.bench)
    report = progress.Progress(states, cell, note.get("started"), note.get("records"))
    report.begin()
    try:
        with one_line():
            inputs.make(states.bench, cell)
    except ValueError as error:
        end(str(error), 1)
    before = states.of(cell).record
    with one_line():
        now = run.measure_cell(states, cell, attempt=attempt)
        report.end(now, history.choose(states, cell, before, now))


def prepare_tokens(snakemake: Any) -> None:
    """Tokenise the text of `data.source`; fail if it is too short for the configured contexts."""
    try:
        inputs.prepare_tokens(bench_of(snakemake))
    except (ValueError, OSError) as error:
        end(str(error), 1)


def prepare_shards(snakemake: Any) -> None:
    """Write the data set that the output's folder names; if the disk is full, its cells record the reason."""
    index = Path(snakemake.output[0])
    try:
        inputs.prepare_shards(bench_of(snakemake), index.parent.name)
    except OSError as error:
        with one_line():
            shards.refuse(index.parent, storage.told(error) or str(error))


def render(snakemake: Any) -> None:
    """Write the tables, figures and findings of the experiment that the rule is named after."""
    # Imported late, because matplotlib takes a second and the other jobs do not need it.
    from stepbench.reporting import frames, rendering

    states = States(bench_of(snakemake))
    experiment = experiments.load(snakemake.rule.removeprefix("render_"))
    with one_line():
        rendering.render(experiment, frames.load(states, experiment), states.bench.root)
        staleness.mark_rendered(states.bench, experiment.name)


def compare(snakemake: Any) -> None:
    """Write the comparison of this machine with all other known machines."""
    from stepbench.comparison import document, machines

    states = States(bench_of(snakemake))
    made = document.build(machines.load(states))
    with one_line():
        storage.write_atomically(Path(snakemake.output.markdown), document.markdown(made))
        storage.write_atomically(Path(snakemake.output.json), document.dump(made))
        staleness.mark_rendered(states.bench, staleness.COMPARISON)


def find_changes(snakemake: Any) -> None:
    """Write what has changed since this machine's cells were measured by other code or software."""
    from stepbench.comparison import changes, changes_document, known, trend, trend_figure
    from stepbench.reporting import figures

    states = States(bench_of(snakemake))
    points = known.load(states)
    made = changes_document.build(points, changes.find(points, states.bench.root))
    figure = Path(snakemake.output.figure)
    with one_line():
        figures.write({figure.stem: trend_figure.trend(trend.find(points))}, figure.parent)
        picture = changes_document.picture(figure.with_suffix("").as_posix())
        storage.write_atomically(Path(snakemake.output.markdown), changes_document.markdown(made, figure=picture))
        storage.write_atomically(Path(snakemake.output.json), changes_document.dump(made))
        staleness.mark_rendered(states.bench, staleness.CHANGES)


def explore(snakemake: Any) -> None:
    """Write the page that draws every fresh record of every known machine."""
    from stepbench.comparison import exploration, machines

    states = States(bench_of(snakemake))
    templates = states.bench.schema.parent / "report" / "templates"
    with one_line():
        storage.write_atomically(Path(snakemake.output[0]), exploration.page(machines.load(states), templates))
        staleness.mark_rendered(states.bench, staleness.EXPLORATION)


def write_first(snakemake: Any) -> None:
    """Write a first report: from the records that are there, of the experiments that have cells for one."""
    from stepbench.reporting import frames, rendering, writeup

    states = States(bench_of(snakemake))
    bench = states.bench
    reported = [experiments.load(name) for name in bench.names if bench.grid(name, first=True)]
    out = (Path(snakemake.output.markdown), Path(snakemake.output.html))
    with one_line():
        for each in reported:  # not marked as rendered: `render` does it again with all records
            rendering.render(each, frames.load(states, each), bench.root)
        writeup.write_up(states, reported, *out, _run_facts(states), note=planning.first_note(states))


def write_up(snakemake: Any) -> None:
    """Write the report and the list of failed cells."""
    from stepbench.comparison import brief, changes_document, document
    from stepbench.reporting import sections, writeup
    from stepbench.reporting.summary import Rival

    states = States(bench_of(snakemake))
    bench = states.bench
    reported = [experiments.load(name) for name in bench.names]
    compared = document.read(Path(snakemake.input.comparison))
    changed = changes_document.read(Path(snakemake.input.changes))
    trends = f"results/{bench.machine}/figures/changes/{changes_document.TREND}"
    with one_line():
        writeup.write_up(
            states,
            reported,
            Path(snakemake.output.markdown),
            Path(snakemake.output.html),
            _run_facts(states),
            {
                sections.MACHINES: lambda target: document.markdown(compared, 2, target.table),
                sections.CHANGES: lambda target: changes_document.section(changed, trends, target),
            },
            [
                Rival(brief.sentence(each, bench.machine), each.commands, each.ratio is not None)
                for each in compared.briefs
            ],
        )
    failures = [
        f"{bench.path(cell)}: {reason}\n"
        for cell in bench.cells
        if (state := states.of(cell)).kind != "fresh" or _took_too_long(state)
        for reason in _reasons(state)
    ]
    if not bench.cells:
        failures = [f"config.yaml: `experiments` must have a cell on the scale {bench.scale}, got none\n"]
    with one_line():
        storage.write_atomically(Path(snakemake.output.failures), "".join(failures))
        staleness.mark_rendered(bench, staleness.WRITEUP)


def _took_too_long(state: State) -> bool:
    """Return whether a cell has run out of time, which stands, and for which nothing else in the report is to blame."""
    return state.record is not None and state.record.status == "timeout"


def _reasons(state: State) -> tuple[str, ...]:
    if not state.reasons and state.record is not None:
        return (f"{state.record.status}: {state.record.reason}",)
    return state.reasons or ("there is no record",)


def _run_facts(states: States) -> dict[str, Any] | None:
    """Return the times of the last run that measured anything, and store them for runs that only render."""
    bench = states.bench
    kept = bench.root / "results" / bench.machine / "logs" / "last_run.json"
    started = _run_note(bench).get("started")
    found = [states.of(cell).record for cell in bench.cells]
    measured = [record for record in found if record is not None and started and record.started >= started]
    if measured and started:
        wall_s = time.time() - datetime.datetime.fromisoformat(started).timestamp()
        inside_s = sum(record.duration_s for record in measured)
        facts = {
            "started": started,
            "cells": len(measured),
            "wall_s": wall_s,
            "inside_s": inside_s,
            "overhead_per_cell_s": (wall_s - inside_s) / len(measured),
        }
        storage.write_atomically(kept, json.dumps(facts))
        return facts
    return json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else None


def _run_note(bench: Bench) -> dict[str, Any]:
    """Return what the run wrote at its start: `started`, an ISO time, and `records`; empty if no run has started."""
    try:
        return json.loads((bench.root / STATE_FOLDER / RUN_NOTE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
