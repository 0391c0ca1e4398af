"""The process that measures one cell and does nothing else: `-m stepbench.process.attempt <parent's process id>`.

`stepbench.process.run` starts one for each cell. It imports torch, which takes 2 s, while its parent prepares the
order; then it reads the order, measures, and writes an outcome: a measurement, or a status with kind and reason.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from stepbench.process import allocator, failures, lifeline, lock, storage, variables

if TYPE_CHECKING:
    from stepbench.measure.measurement import Setting

# With Python's 700 the garbage collector runs in most steps, and ten times as often while torch.compile is imported.
ALLOCATIONS_BETWEEN_COLLECTIONS = 10_000


class Attempt:
    """A measuring process that has started, holds this host's devices, and waits for its order.

    Starting one waits while another process of this user measures on this host.

    Args:
        log: the file for its output; its folder is made.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        file = Path(tempfile.gettempdir(), f"stepbench-{os.getuid()}.lock")
        self._lock = lock.hold(file, "this host", wait=True)
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stepbench.process.attempt", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                # It holds the lock too, as do its forks, such as ranks, which may outlive this process by a moment.
                pass_fds=(self._lock,),
                env=variables.environment(),
            )

    def order(self, order: dict[str, Any]) -> None:
        """Send what to measure, once. Whoever waits for the process finds out if it is dead already."""
        assert self.process.stdin  # noqa: S101 - for the type checker
        try:
            self.process.stdin.write(json.dumps(order).encode())
            self.process.stdin.close()
        except BrokenPipeError:
            pass

    def end(self) -> None:
        """End the process and all its children, and release the devices."""
        lifeline.kill_group(self.process)
        os.close(self._lock)


# -- in the process ----------------------------------------------------------------------------------------------------


def main(parent: int) -> NoReturn:
    """Wait for an order, carry it out, and exit."""
    lifeline.die_with_parent(parent)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if ignored, which is inherited, a rank's exit status is lost
    gc.disable()  # a quarter of the import's 2 s, and it frees none of its half a million objects
    import torch  # noqa: F401

    gc.freeze()
    gc.enable()
    gc.set_threshold(ALLOCATIONS_BETWEEN_COLLECTIONS)
    if text := sys.stdin.read():
        order = json.loads(text)
        outcome = attempt(order)
        storage.write_atomically(Path(order["answer"]), json.dumps(outcome))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # Python's own exit, through all of torch's modules, takes up to a second


def attempt(order: dict[str, Any]) -> dict[str, Any]:
    """Measure, and turn whatever happens into a record's fields."""
    # Late: what a number depends on is read after its fingerprint was taken.
    from stepbench.measure import host_load

    limit = resource.getrlimit(resource.RLIMIT_AS)
    load = host_load.read()
    start = time.perf_counter()
    try:
        outcome = _measured(order)
    except Exception as error:
        resource.setrlimit(resource.RLIMIT_AS, limit)
        outcome = _failed(error)
    resource.setrlimit(resource.RLIMIT_AS, limit)
    duration_s = time.perf_counter() - start
    return {**outcome, "duration_s": duration_s, "load": host_load.between(load, host_load.read())}


def _measured(order: dict[str, Any]) -> dict[str, Any]:
    import torch

    from stepbench.experiments import experiment as experiments
    from stepbench.measure import memory

    cell = experiments.cell_at(Path(order["path"]))
    measure = experiments.load(cell.experiment).measure
    setting = _setting(order)
    os.chdir(order["root"])  # models and kernels of the user's own are named by paths relative to it
    torch.set_num_threads(order["protocol"]["threads"])
    if order["host_memory_gib"] is not None and order["device"] == "cpu":
        # Not with CUDA, which reserves address space by the terabyte.
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (int(order["host_memory_gib"] * 2**30), hard))
    memory.keep_to_device(order["device"])
    measured = measure(cell, setting)
    _check_time_passed(measured.samples)
    return {
        "status": "ok",
        "samples": measured.samples,
        "scalars": measured.scalars,
        "details": measured.details,
        "protocol": {
            "effective_threads": torch.get_num_threads(),
            "allocator": allocator.stated(),
            "environment_variables": variables.changing(),
            **measured.protocol,
        },
    }


def _failed(error: Exception) -> dict[str, Any]:
    kind = failures.kind_of(error)
    more: dict[str, Any] = {}
    if kind not in failures.WITHOUT_TRACEBACK:
        more["traceback"] = "".join(traceback.format_exception(error))
    if (rank := failures.rank_of(error)) is not None:
        more["details"] = {"rank": rank}
    return failures.failure(kind, failures.sentence(error), **more)


def _setting(order: Mapping[str, Any]) -> Setting:
    from stepbench.measure.measurement import Setting

    return Setting(
        device=order["device"],
        protocol=order["protocol"],
        definition=order["definition"],
        tokens=Path(order["tokens"]) if order["tokens"] else None,
        shards=Path(order["shards"]) if order["shards"] else None,
        artifacts=Path(order["artifacts"]),
        trust_prediction=order["trust_prediction"],
        deadline=order["deadline"],
        may_fork=sys.platform == "linux",  # elsewhere system libraries do not bear it
    )


def _check_time_passed(samples: Mapping[str, Any]) -> None:
    """Check that some sample is above 0 s. One kind alone, such as waiting, may take no time.

    System time is the kernel's count, not this clock's.

    Raises:
        WrongResultError: the clock stands still.
    """
    from stepbench.measure.measurement import WrongResultError

    timed = [values for name, values in samples.items() if name.endswith("_s") and not name.endswith("_system_s")]
    seconds = [value for values in timed for rank in values for value in (rank if isinstance(rank, list) else [rank])]
    if seconds and not any(seconds):
        raise WrongResultError(f"the clock stood still: each of {len(seconds)} samples is 0 s")


if __name__ == "__main__":
    main(int(sys.argv[1]))
