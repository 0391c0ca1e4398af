"""Measure one cell, in a process of its own, and write its record whatever happens.

The parent (`measure_cell`) imports no torch. It takes the fingerprint, holds the device, starts a child, waits for it,
for the deadline or for the death of whoever started it, and writes the record. The child (`python -m stepbench.run`)
does nothing but measure. So a cell that raises, runs out of memory, hangs or is killed ends as a record with a reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from stepbench import cells, fingerprint, lifeline, records
from stepbench import lock as locks
from stepbench.bench import Bench
from stepbench.experiments import experiment as experiments
from stepbench.measure import environment


def measure_cell(bench: Bench, name: str, cell: Any, *, log: Path | None = None) -> records.Record:
    """Measure a cell and write its record.

    Args:
        bench: the configuration.
        name: the experiment.
        cell: one of its cells, in the configured grid or not.
        log: where the measuring process' output goes; beside the machine's other logs where None.

    Returns:
        The record that was written.

    Raises:
        ValueError: the cell names a size that config.yaml does not have.
        OSError: the record cannot be written (no space, no permission).
    """
    bench.forget_source()
    before = bench.fingerprint(name, cell)
    settings_before = _on_disk(bench)
    path = bench.root / bench.path(name, cell)
    log = log or bench.root / "results" / bench.machine / "logs" / name / f"{cells.name(cell)}.log"
    for folder in (path.parent, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    with _device_held(bench) as lock:
        facts = environment.describe(bench.device, bench.root)
        facts["before"] = environment.state(bench.device)
        outcome = _supervise(bench, name, cell, log=log, lock=lock)
        facts["after"] = environment.state(bench.device)
    bench.forget_source()
    changes = fingerprint.difference(before, bench.fingerprint(name, cell))
    changes += _edited(bench, settings_before)
    if changes:
        outcome = {
            "status": "error",
            "reason": f"discarded, because what is measured changed during the measurement: {'; '.join(changes)}",
            "duration_s": outcome["duration_s"],
        }
    record = records.Record(
        experiment=name,
        cell=cells.as_dict(cell),
        fingerprint=before,
        started=started,
        environment=facts,
        **{
            **outcome,
            "protocol": {**bench.definition(name, cell), "threads": bench.threads, **outcome.get("protocol", {})},
        },
    )
    try:
        records.write(path, record)
    except records.RecordError as error:  # not a number, a negative time: the cell's fault, and its own record's reason
        lost: dict[str, Any] = {"samples": {}, "scalars": {}, "details": {}, "protocol": {}}
        reason = f"what was measured cannot be recorded: {str(error).removeprefix(f'{path}: ')}"
        record = dataclasses.replace(record, status="error", reason=reason, **lost)
        records.write(path, record)
    return record


def _on_disk(bench: Bench) -> list[bytes | None]:
    """Return the bytes of each configuration file."""
    return [file.read_bytes() if file.exists() else None for file in bench.files]


def _edited(bench: Bench, before: list[bytes | None]) -> list[str]:
    """Say whether a configuration file says something else than `before`; comments and layout do not count."""
    for file, old in zip(bench.files, before, strict=True):
        new = file.read_bytes() if file.exists() else None
        if old != new and (old is None or new is None or _meaning(old) != _meaning(new)):
            return [f"{file.name} was edited"]
    return []


def _meaning(text: bytes) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:  # half written by an editor, perhaps; it is not what it was
        return text


@contextlib.contextmanager
def _device_held(bench: Bench) -> Iterator[int]:
    """Hold this host's device, waiting for whoever else measures on it, and yield the lock's descriptor."""
    lock = locks.hold(
        Path(tempfile.gettempdir(), f"stepbench-{os.getuid()}-{bench.device}.lock"),
        f"the {bench.device} device",
        wait=True,
    )
    try:
        yield lock
    finally:
        os.close(lock)


def _supervise(bench: Bench, name: str, cell: Any, *, log: Path, lock: int) -> dict[str, Any]:
    """Run the child and return the record's fields that tell how it went."""
    limits = bench.settings["limits"]
    start = time.monotonic()
    kills = environment.oom_kills()
    with tempfile.TemporaryDirectory(prefix="stepbench-") as folder, log.open("wb") as output:
        order, answer = Path(folder, "order.json"), Path(folder, "answer.json")
        order.write_text(json.dumps(_order(bench, name, cell, answer)), encoding="utf-8")
        child = subprocess.Popen(
            [sys.executable, "-m", "stepbench.run", str(order)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # The child keeps the device's lock too: it may outlive this process by a moment.
            pass_fds=(lock,),
            env={**os.environ, "OMP_NUM_THREADS": str(bench.threads), "MKL_NUM_THREADS": str(bench.threads)},
        )
        try:
            end = lifeline.wait(child, deadline_s=limits["time_s"], watched=_watched(bench))
        finally:
            lifeline.kill_group(child)
        if end == "orphaned":
            raise SystemExit(lifeline.ORPHANED_EXIT_CODE)
        duration_s = time.monotonic() - start
        if end == "deadline":
            reason = f"no result after {limits['time_s']} s (`limits.time_s`)"
            return {"status": "timeout", "reason": reason, "duration_s": duration_s}
        if answer.exists():
            return json.loads(answer.read_text(encoding="utf-8"))
    return {**_death(child.returncode, kills, log), "duration_s": duration_s}


def _watched(bench: Bench) -> tuple[int, ...]:
    """Return the processes without which this measurement is not wanted any more: those up to the run's own."""
    holder = bench.holder()
    return () if holder == os.getpid() else lifeline.ancestors_up_to(holder)


def _order(bench: Bench, name: str, cell: Any, answer: Path) -> dict[str, Any]:
    stem = bench.root / bench.path(name, cell).with_suffix("")
    return {
        "parent": os.getpid(),
        "experiment": name,
        "cell": cells.name(cell),
        "answer": str(answer),
        "device": bench.device,
        "protocol": bench.protocol,
        "definition": bench.definition(name, cell),
        "tokens": str(bench.root / bench.token_path) if bench.reads_tokens(name) else None,
        "artifacts": str(stem),
        "host_memory_gib": bench.settings["limits"]["host_memory_gib"],
    }


def _death(returncode: int, kills_before: int | None, log: Path) -> dict[str, Any]:
    """Say how a child ended that left no answer."""
    if returncode < 0:
        name = signal.Signals(-returncode).name
        kills = environment.oom_kills()
        if name == "SIGKILL" and kills is not None and kills_before is not None and kills > kills_before:
            return {"status": "oom", "reason": "the kernel killed the measuring process for want of memory (SIGKILL)"}
        return {"status": "error", "reason": f"the measuring process was killed by {name}"}
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    return {
        "status": "error",
        "reason": f"the measuring process left with exit code {returncode} and no result: {last}",
    }


# -- the child ---------------------------------------------------------------------------------------------------------


def _main(order_path: str) -> None:
    order = json.loads(Path(order_path).read_text(encoding="utf-8"))
    lifeline.die_with_parent(order["parent"])
    outcome = _attempt(order)
    records.write_atomically(Path(order["answer"]), json.dumps(outcome))


def _attempt(order: dict[str, Any]) -> dict[str, Any]:
    """Measure, and turn whatever happens into a record's fields."""
    from stepbench.measure.measurement import Setting, UnsupportedError

    experiment = experiments.load(order["experiment"])
    cell = cells.parse(experiment.cell, order["cell"])
    setting = Setting(
        device=order["device"],
        protocol=order["protocol"],
        definition=order["definition"],
        tokens=Path(order["tokens"]) if order["tokens"] else None,
        artifacts=Path(order["artifacts"]),
    )
    _import_torch(order["protocol"]["threads"])
    limit = resource.getrlimit(resource.RLIMIT_AS)
    if order["host_memory_gib"] is not None and order["device"] == "cpu":
        # Not with CUDA, which reserves address space by the terabyte.
        resource.setrlimit(resource.RLIMIT_AS, (int(order["host_memory_gib"] * 2**30), limit[1]))
    start = time.perf_counter()
    try:
        measured = experiment.measure(cell, setting)
        outcome: dict[str, Any] = {
            "status": "ok",
            "samples": measured.samples,
            "scalars": measured.scalars,
            "details": measured.details,
            "protocol": measured.protocol,
        }
    except UnsupportedError as error:
        outcome = {"status": "unsupported", "reason": str(error)}
    except Exception as error:
        resource.setrlimit(resource.RLIMIT_AS, limit)
        status = "oom" if _is_out_of_memory(error) else "error"
        reason = f"{type(error).__name__}: {_first_line(error)}"
        outcome = {"status": status, "reason": reason, "traceback": traceback.format_exc()}
    resource.setrlimit(resource.RLIMIT_AS, limit)
    return {**outcome, "duration_s": time.perf_counter() - start}


def _import_torch(threads: int) -> None:
    """Import torch before the clock of `duration_s` starts, and set the threads that the protocol asks for."""
    import torch

    torch.set_num_threads(threads)


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    # The CPU allocator raises a plain RuntimeError; its text is all there is to tell it by.
    text = str(error)
    on_cpu = isinstance(error, RuntimeError) and ("can't allocate memory" in text or "Cannot allocate memory" in text)
    mapping = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or on_cpu or mapping


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")


if __name__ == "__main__":
    _main(sys.argv[1])
