"""The process that measures one cell and does nothing else: `python -m stepbench.attempt order.json`.

It is started by `stepbench.run`, once for each cell. Whatever its experiment does becomes the outcome that it leaves:
a measurement, or a status with a reason. It imports little, because every cell pays for that.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from stepbench import cells, lifeline, records
from stepbench.experiments import experiment as experiments
from stepbench.measure.measurement import Setting, UnsupportedError


def main(order_path: str) -> NoReturn:
    """Carry out the order that a file holds, and leave."""
    order = json.loads(Path(order_path).read_text(encoding="utf-8"))
    lifeline.die_with_parent(order["parent"])
    outcome = attempt(order)
    records.write_atomically(Path(order["answer"]), json.dumps(outcome))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the kernel frees a model in no time; Python's way through all of torch's modules takes up to a second


def attempt(order: dict[str, Any]) -> dict[str, Any]:
    """Measure, and turn whatever happens into a record's fields."""
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
    gc.disable()  # it finds nothing in half a million objects that stay, and takes a quarter of the import's 2 s
    import torch

    gc.freeze()
    gc.enable()
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
    main(sys.argv[1])
