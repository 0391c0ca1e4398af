"""The functions that the Snakefile and the rules call. They receive Snakemake's objects and do not import it."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import gc
import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import psutil

from stepbench import terminal
from stepbench.data import shards
from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells, fingerprint, inputs, machine, planning, staleness
from stepbench.pipeline.bench import RUN_LOCK, STATE_FOLDER, Bench
from stepbench.pipeline.config import SCHEMA, ConfigError
from stepbench.pipeline.state import States
from stepbench.process import interruption, lock, storage
from stepbench.process.lock import BusyError

RUN_NOTE = "run.json"
MINUTES_TO_START = 5  # of a job beyond the limit of its cell: Python on a slow file system
USAGE_EXIT_CODE = 2
NESTED_TEXT = (
    "\nSnakemake reads each number inside of `--config KEY={…}` as a text: write it to a file and use `--configfile`"
)
TABLE_FILES = ("csv", "md", "json")
# Snakemake creates hundreds of thousands of objects that stay alive, and the garbage collector scans them again and
# again: a sixth of a dry run over 5 000 cells.
ALLOCATIONS_BETWEEN_COLLECTIONS = 1_000_000


def open_bench(workflow: Any, settings: dict[str, Any]) -> Bench:
    """Return the bench of the Snakefile, or exit with one line per mistake in the configuration or the targets."""
    interruption.end_run_on_signals()
    gc.set_threshold(ALLOCATIONS_BETWEEN_COLLECTIONS)
    try:
        bench = Bench(
            settings,
            root=Path.cwd(),
            schema=Path(workflow.basedir, SCHEMA),
            files=[Path(file) for file in workflow.configfiles],
        )
        # The workflow object has no targets until the Snakefile has been read.
        bench.check_targets(sys.argv[1:])
        inputs.check_exist(bench)
    except ConfigError as error:
        nested = any(isinstance(value, Mapping | list) for value in workflow.config_settings.config.values())
        end(f"{error}{NESTED_TEXT if nested else ''}", USAGE_EXIT_CODE)
    return bench


def wildcards_of() -> dict[str, str]:
    """Return the pattern of each wildcard: the axes of all experiments by their types, and the names of data sets.

    If two experiments have an axis of the same name with different choices, the pattern allows both; `cells.parse`
    checks the choice when it reads a cell's path.

    Raises:
        TypeError: two experiments have an axis of the same name with different types.
    """
    found: dict[str, dict[str, type]] = {}
    for name in experiments.names():
        for axis in cells.axes(experiments.load(name).cell):
            patterns = found.setdefault(axis.name, {})
            patterns[axis.pattern] = axis.type
            if set(patterns.values()) != {axis.type}:
                raise TypeError(f"axis `{axis.name}` of {name} must have the same type as in other experiments")
    own = {"shards": shards.PATTERN, "described": machine.NAME.pattern}
    return own | {name: "|".join(patterns) for name, patterns in found.items()}


def measuring_command(workflow: Any, bench: Bench) -> str:
    """Return the shell command that measures a cell, without the record and the log.

    The settings are passed in a file that is named after its content, so that each run and its jobs on other nodes
    measure with the settings that this run has read.

    It is not a `script:`, because Snakemake reads a script again for each job, even in a dry run (2 s over 5 000
    cells), and a script imports Snakemake (0.2 s). With `exec` no shell remains between Snakemake and the process that
    must receive its signals.
    """
    text = json.dumps(bench.settings)
    settings = Path(STATE_FOLDER, "settings", f"{fingerprint.digest(text)}.json")
    if not (bench.root / settings).exists():
        with one_line():
            storage.write_atomically(bench.root / settings, text)
    script = Path(workflow.basedir, "workflow_scripts", "measure.py")
    return shlex.join(["exec", sys.executable, str(script), str(settings)])


def describing_command() -> str:
    """Return the shell command that describes the machine on which it runs, without the name."""
    return shlex.join([sys.executable, "-m", "stepbench", "describe"])


def whole_node() -> dict[str, Any]:
    """Return what a job asks of a cluster that gets a node for itself, with all its memory and cores.

    An exclusive node comes with all that it has, but a step in it only gets as much as it asks for: so neither memory
    (0) nor cores (-1) are asked for. Slurm counts cores or threads, and only the node knows which.
    """
    return {"cpus_per_task": -1, "mem_mb": 0, "slurm_extra": "--exclusive"}


def node_resources(bench: Bench) -> dict[str, Any]:
    """Return what each measurement asks of a cluster: whole nodes of the described machine, and time.

    Nothing may run beside a measurement. A machine that measures itself asks nobody.
    """
    host = bench.host
    if not host.described:
        return {}
    minutes = math.ceil(bench.settings["limits"]["time_s"] / 60) + MINUTES_TO_START
    # Slurm gives a job of one task one node, however many were asked for; beside GPUs the executor takes it per GPU.
    more = {"gres": f"gpu:{host.device_count}"} if host.device == "cuda" else {"tasks": nodes}
    return {"runtime": minutes, **whole_node(), **more}


def nodes(wildcards: Any) -> int:
    """Return on how many nodes a cell is measured."""
    return int(getattr(wildcards, "nodes", 1))


def rendered_files(bench: Bench, report: Callable[..., Any], name: str) -> list[Any]:
    """Return the files of the rule `render_<experiment>`, which `stepbench.reporting.rendering` writes.

    Args:
        bench: the configuration.
        report: Snakemake's `report`, which adds a figure to Snakemake's own report.
        name: the experiment; its tables.py and figures.py define the names.
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


def refuse_ignored_markers(
    workflow: Any, inputs: Callable[..., staleness.InputFunction]
) -> Callable[..., staleness.InputFunction]:
    """Wrap `inputs`, which makes input functions, so that a run that would ignore their markers exits with an error.

    A marker works by its file time. A run that ignores file times or touches its outputs would leave stale numbers in
    the tables.
    """

    def made(*about: Any) -> staleness.InputFunction:
        """Return what `inputs` makes, with the check."""
        function = inputs(*about)

        @staleness.with_signature
        def checked(wildcards: Any) -> list[str]:
            """Return the files, or end the run where it would ignore a marker among them."""
            found = function(wildcards)
            if staleness.are_marked(found):
                triggers = {trigger.name.lower() for trigger in workflow.rerun_triggers}
                if "mtime" not in triggers:
                    sentence = "`--rerun-triggers` must include mtime when something is stale, got "
                    end(sentence + ", ".join(sorted(triggers)), USAGE_EXIT_CODE)
                if workflow.touch:
                    sentence = "`--touch` must not be used when something is stale: it would keep the stale results"
                    end(sentence, USAGE_EXIT_CODE)
            return found

        return checked

    return made


def explain_dry_run(states: States, workflow: Any) -> None:
    """After a dry run, say how many cells it would measure for which reasons; Snakemake has ten lines for each job."""

    def explain() -> None:
        # Whether it is one is not known while the Snakefile is read.
        paths = _to_measure(workflow) if workflow.dryrun and workflow.dag is not None else []
        for line in planning.grouped(states, paths):
            terminal.say(line)

    atexit.register(explain)


def start_run(bench: Bench, workflow: Any) -> None:
    """Lock the folder, check data and disk, and store the start of the run; exit with one line if that fails."""
    interruption.end_run_on_signals()  # again: Snakemake has replaced the handler for SIGTERM
    made = [path for job in workflow.dag.needrun_jobs() for path in (*job.output, *job.log)]
    try:
        if workflow.non_local_exec:
            _check_described(bench, workflow)
        storage.check_writable(bench.root / path for path in (RUN_LOCK, *made))
        lock.hold(bench.root / RUN_LOCK, "this folder")
        inputs.check(bench)
    except (BusyError, ConfigError, storage.StorageError) as error:
        end(str(error), 1)
    note = {"started": _process_start(), "records": _to_measure(workflow)}
    with one_line():
        storage.write_atomically(bench.root / STATE_FOLDER / RUN_NOTE, json.dumps(note))


def _check_described(bench: Bench, workflow: Any) -> None:
    """Check that paths, grids and what jobs ask for are those of the nodes, and not of the machine that submits them.

    Raises:
        ConfigError: cells would be measured on nodes of a machine that has not described itself.
    """
    if not bench.host.described and _to_measure(workflow):
        file = machine.file_of(Path(), bench.host.name)
        raise ConfigError(
            "`machine` must name a machine that has described itself, where cells are measured on other machines than "
            f"this one; there is no {file}, see docs/cluster.md"
        )


def _to_measure(workflow: Any) -> list[str]:
    """Return the records of the cells that this run will measure."""
    needed = workflow.dag.needrun_jobs(exclude_finished=False)  # a dry run has "finished" all of them
    jobs = (job for job in needed if job.rule.name.startswith("measure_"))
    return [str(path) for job in jobs for path in job.output]


def _process_start() -> str:
    start = datetime.datetime.fromtimestamp(psutil.Process().create_time(), datetime.UTC)
    return start.isoformat(timespec="milliseconds")


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Exit with one line if a write inside the block fails."""
    try:
        yield
    except OSError as error:
        if (sentence := storage.told(error)) is None:
            raise
        end(sentence, 1)


def end(message: str, code: int) -> NoReturn:
    """Print the message to standard error, each line with `stepbench:` in front, and exit."""
    terminal.say(message)
    sys.exit(code)
