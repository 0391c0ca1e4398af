"""What the Snakefile and its scripts ask of stepbench; Snakemake's objects come in, and are not imported."""

from __future__ import annotations

import contextlib
import datetime
import gc
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import psutil

from stepbench.data import shards
from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells, fingerprint, inputs, staleness
from stepbench.pipeline.bench import RUN_LOCK, STATE_FOLDER, Bench
from stepbench.pipeline.config import SCHEMA, ConfigError
from stepbench.process import interruption, lock, storage
from stepbench.process.lock import BusyError

RUN_NOTE = "run.json"
USAGE_EXIT_CODE = 2
TABLE_FILES = ("csv", "md", "json")
# Snakemake makes hundreds of thousands of objects that stay, and Python looks through them again and again: over 5 000
# cells that was a sixth of a dry run.
ALLOCATIONS_BETWEEN_COLLECTIONS = 1_000_000


def open_bench(workflow: Any, settings: dict[str, Any]) -> Bench:
    """Return the bench of a Snakefile that is being read, or end with one line for each mistake in what was asked."""
    interruption.end_run_on_signals()
    gc.set_threshold(ALLOCATIONS_BETWEEN_COLLECTIONS)
    try:
        bench = Bench(
            settings,
            root=Path.cwd(),
            schema=Path(workflow.basedir, SCHEMA),
            files=[Path(file) for file in workflow.configfiles],
        )
        # Snakemake tells its workflow the targets only after the Snakefile has been read.
        bench.check_targets(sys.argv[1:])
        inputs.check_exist(bench)
    except ConfigError as error:
        end(str(error), USAGE_EXIT_CODE)
    return bench


def wildcards_of() -> dict[str, str]:
    """Return the pattern of each wildcard: the axes of all experiments by their types, and the names of data sets.

    Where two experiments have an axis of one name with other words to choose from, either is let through; which of them
    a cell may have is checked when its path is read (`cells.parse`).

    Raises:
        TypeError: two experiments have an axis of one name with two types.
    """
    found: dict[str, dict[str, type]] = {}
    for name in experiments.names():
        for axis in cells.axes(experiments.load(name).cell):
            patterns = found.setdefault(axis.name, {})
            patterns[axis.pattern] = axis.type
            if set(patterns.values()) != {axis.type}:
                raise TypeError(f"axis `{axis.name}` of {name} must have the type that it has in other experiments")
    return {"shards": shards.PATTERN} | {name: "|".join(patterns) for name, patterns in found.items()}


def measuring_command(workflow: Any, bench: Bench) -> str:
    """Return the shell command that measures a cell, but for the record and the log.

    The settings travel in a file that is named after what it holds: whoever reads the Snakefile (this run, one after
    it, a job of either on another node) measures with those that it has read itself.

    It is no `script:`: Snakemake reads one again for each job, even in a dry run (2 s over 5 000 cells), and it begins
    by importing Snakemake (0.2 s). With `exec` no shell stands between Snakemake and what a signal has to reach.
    """
    text = json.dumps(bench.settings)
    settings = Path(STATE_FOLDER, "settings", f"{fingerprint.digest(text)}.json")
    if not (bench.root / settings).exists():
        with one_line():
            storage.write_atomically(bench.root / settings, text)
    script = Path(workflow.basedir, "workflow_scripts", "measure.py")
    return shlex.join(["exec", sys.executable, str(script), str(settings)])


def rendered_files(bench: Bench, report: Callable[..., Any], name: str) -> list[Any]:
    """Return the files that the rule `render_<experiment>` makes, as `stepbench.reporting.rendering` writes them.

    Args:
        bench: the configuration.
        report: Snakemake's, which has a figure shown in its own report.
        name: the experiment, whose tables.py and figures.py name them.
    """
    experiment, machine = experiments.load(name), f"results/{bench.machine}"
    caption = f"../report/captions/{name}.rst"
    files: list[Any] = [
        f"{machine}/tables/{name}/{each}.{kind}" for each in experiment.table_names for kind in TABLE_FILES
    ]
    for each in experiment.figure_names:
        stem = f"{machine}/figures/{name}/{each}"
        files += [report(f"{stem}.svg", caption=caption, category=name), f"{stem}.png", f"{stem}.json"]
    return [*files, f"{machine}/findings/{name}.json"]


def heeded(workflow: Any, inputs: Callable[..., staleness.InputFunction]) -> Callable[..., staleness.InputFunction]:
    """Return `inputs`, which makes input functions, so that a run which would not heed their markers is refused.

    A marker is nothing but a newer file. A run that is told to ignore file times, or to touch what is there, would
    leave stale numbers in the tables.
    """

    def made(*about: Any) -> staleness.InputFunction:
        function = inputs(*about)

        @staleness.asked_of_every_job
        def checked(wildcards: Any) -> list[str]:
            found = function(wildcards)
            if staleness.are_marked(found):
                triggers = {trigger.name.lower() for trigger in workflow.rerun_triggers}
                if "mtime" not in triggers:
                    sentence = "`--rerun-triggers` must have mtime among them where something is stale, got "
                    end(sentence + ", ".join(sorted(triggers)), USAGE_EXIT_CODE)
                if workflow.touch:
                    sentence = "`--touch` must not be given where something is stale, for nothing would be made again"
                    end(sentence, USAGE_EXIT_CODE)
            return found

        return checked

    return made


def start_run(bench: Bench, workflow: Any) -> None:
    """Hold the folder, look at data and disk, and note when the run began; end with one line where that cannot be."""
    interruption.end_run_on_signals()  # again: Snakemake has put a handler of its own over the one for SIGTERM
    made = [path for job in workflow.dag.needrun_jobs() for path in (*job.output, *job.log)]
    try:
        storage.check_writable(bench.root / path for path in (RUN_LOCK, *made))
        lock.hold(bench.root / RUN_LOCK, "this folder")
        inputs.check(bench)
    except (BusyError, ConfigError, storage.StorageError) as error:
        end(str(error), 1)
    with one_line():
        storage.write_atomically(bench.root / STATE_FOLDER / RUN_NOTE, json.dumps({"started": _process_start()}))


def _process_start() -> str:
    start = datetime.datetime.fromtimestamp(psutil.Process().create_time(), datetime.UTC)
    return start.isoformat(timespec="milliseconds")


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """End with one line where the disk refuses what is written inside."""
    try:
        yield
    except OSError as error:
        if (sentence := storage.told(error)) is None:
            raise
        end(sentence, 1)


def end(message: str, code: int) -> NoReturn:
    """Say why, a line for each sentence, and leave."""
    for line in message.splitlines():
        print(f"stepbench: {line}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
