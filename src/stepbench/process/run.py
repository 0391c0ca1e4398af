"""Measure one cell in a process of its own, and write its record whatever happens.

This module imports no torch. It takes the fingerprint, orders a child to measure (`stepbench.process.attempt`), waits
until that ends, the time limit is reached or the run is gone, and writes the record. So a cell that raises, runs out
of memory, hangs or is killed ends as a record with a reason.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from stepbench.measure import environment
from stepbench.measure.device_watch import DeviceWatch
from stepbench.pipeline import fingerprint, history, machine, records
from stepbench.pipeline.bench import RUN_LOCK, Bench
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.state import States
from stepbench.process import failures, lifeline, lock
from stepbench.process.attempt import Attempt


def measure_cell(
    states: States,
    cell: Cell,
    *,
    attempt: Attempt | None = None,
    replace: bool = False,
    limit_s: float = math.inf,
) -> records.Record:
    """Measure a cell and write its record; one with numbers that stood there goes to the history.

    Args:
        states: those of the configuration.
        cell: any cell of an experiment, in the configured grid or not.
        attempt: the process to measure in, which is ended; where None, one is started whose output goes beside the
            machine's other logs.
        replace: whether to replace a better record of the same fingerprint, too.
        limit_s: end it by then, where the configured limit on time is later.

    Returns:
        The record of this measurement; where a better one stood in the cell's file, that one still does
        (`stepbench.pipeline.history.choose`).

    Raises:
        ValueError: the cell names a size that config.yaml does not have.
        OSError: the record cannot be written (no space, no permission).
    """
    bench = states.bench
    limit_s = min(limit_s, bench.settings["limits"]["time_s"])
    attempt = attempt or Attempt(bench.root / "results" / bench.machine / "logs" / cell.experiment / f"{cell.name}.log")
    try:
        states.forget()
        before = states.fingerprint(cell)
        settings_before = _on_disk(bench)
        path = bench.root / bench.path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        if instead := machine.found_instead(bench.host):
            facts: dict[str, Any] = {}
            outcome = _landed_elsewhere(bench.machine, instead)
        else:
            facts = environment.describe(bench.device, bench.root)
            own = getattr(cell, "ranks", 1) // getattr(cell, "nodes", 1)
            facts["before"] = environment.state(bench.device, own)
            with DeviceWatch(environment.used(bench.device)[:own]) as watch:
                outcome = _supervise(bench, cell, attempt, limit_s)
            facts["during"] = outcome.pop("load", None)
            facts["gpus_during"] = watch.found()
            facts["after"] = environment.state(bench.device, own)
        facts["node"] = environment.node()
    finally:
        attempt.end()
    states.forget()
    changes = [str(each) for each in fingerprint.difference(before, states.fingerprint(cell))]
    changes += _edited(bench, settings_before)
    if changes:
        reason = f"discarded: source or configuration changed during the measurement ({'; '.join(changes)})"
        outcome = failures.failure("source_changed", reason, duration_s=outcome["duration_s"])
    record = records.Record(
        experiment=cell.experiment,
        cell=cell.values,
        fingerprint=before,
        started=started,
        environment=facts,
        **{
            **outcome,
            "protocol": {
                **bench.definition(cell),
                "threads": bench.threads,
                # Another limit would measure it again.
                **({"time_limit_s": limit_s} if outcome["status"] == "timeout" else {}),
                **outcome.get("protocol", {}),
            },
        },
    )
    try:
        history.put(states, cell, record, take=replace)
    except records.RecordError as error:  # such as NaN or a negative time, which is the cell's fault
        failed = failures.failure("unrecordable", f"the measurement cannot be recorded: {error.problem}")
        lost: dict[str, Any] = {"samples": {}, "scalars": {}, "details": {}, "protocol": {}}
        record = dataclasses.replace(record, **failed, **lost)
        history.put(states, cell, record, take=replace)
    return record


def _landed_elsewhere(name: str, instead: list[str]) -> dict[str, Any]:
    reason = f"landed on {environment.node()}, which is not {name} as described: {'; '.join(instead)}"
    return failures.failure("landed_elsewhere", reason, duration_s=0.0)


def _on_disk(bench: Bench) -> list[bytes | None]:
    """Return the bytes of each configuration file."""
    return [file.read_bytes() if file.exists() else None for file in bench.files]


def _edited(bench: Bench, before: list[bytes | None]) -> list[str]:
    """Return which configuration file has another content than `before`; comments and layout do not count."""
    for file, old in zip(bench.files, before, strict=True):
        new = file.read_bytes() if file.exists() else None
        if old != new and (old is None or new is None or _meaning(old) != _meaning(new)):
            return [f"{file.name} was edited"]
    return []


def _meaning(text: bytes) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:  # perhaps an editor has written half of it; in any case it has changed
        return text


def _supervise(bench: Bench, cell: Cell, attempt: Attempt, limit_s: float) -> dict[str, Any]:
    """Have the child measure; return the fields of the record that describe the outcome."""
    start = time.monotonic()
    kills = environment.oom_kills()
    with tempfile.TemporaryDirectory(prefix="stepbench-") as folder:
        answer = Path(folder, "answer.json")
        attempt.order({**_order(bench, cell, answer), "deadline": start + limit_s})
        end = lifeline.wait(attempt.process, deadline_s=limit_s, watched=_watched(bench))
        duration_s = time.monotonic() - start
        lifeline.kill_group(attempt.process)
        if end == "orphaned":
            raise SystemExit(lifeline.ORPHANED_EXIT_CODE)
        if end == "deadline":
            of = " (`limits.time_s`)" if limit_s == bench.settings["limits"]["time_s"] else ""
            reason = f"no result within {limit_s:.3g} s{of}"
            return failures.failure("deadline", reason, duration_s=duration_s)
        if answer.exists():
            return json.loads(answer.read_text(encoding="utf-8"))
    return {**_death(attempt.process.returncode, kills, attempt.log), "duration_s": duration_s}


def _watched(bench: Bench) -> tuple[int, ...]:
    """Return the processes whose end makes this measurement pointless: the ancestors up to the run."""
    holder = lock.holder(bench.root / RUN_LOCK)
    return () if holder == os.getpid() else lifeline.ancestors_up_to(holder)


def _order(bench: Bench, cell: Cell, answer: Path) -> dict[str, Any]:
    root = bench.root.absolute()
    stem = root / bench.path(cell).with_suffix("")
    data = bench.shards(cell)
    return {
        "root": str(root),
        "path": str(bench.path(cell)),
        "answer": str(answer),
        "device": bench.device,
        "protocol": bench.protocol,
        "definition": bench.definition(cell),
        "tokens": str(root / bench.token_path) if bench.reads_tokens(cell.experiment) else None,
        "shards": None if data is None else str(root / bench.shards_dir / data.name),
        "artifacts": str(stem),
        "trust_prediction": bench.trust_prediction,
        "host_memory_gib": bench.settings["limits"]["host_memory_gib"],
    }


def _death(returncode: int, kills_before: int | None, log: Path) -> dict[str, Any]:
    """Return how a child ended that left no answer."""
    if returncode < 0:
        name = signal.Signals(-returncode).name
        kills = environment.oom_kills()
        if name == "SIGKILL" and kills is not None and kills_before is not None and kills > kills_before:
            return failures.failure("oom", "killed by the kernel's OOM killer")
        return failures.failure("killed", f"the measuring process was killed by {name}")
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    told = f"its output ends with: {last}" if last else "it has no output"
    return failures.failure("no_result", f"the measuring process exited with status {returncode} and no result; {told}")
