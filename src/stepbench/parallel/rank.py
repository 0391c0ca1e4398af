"""The process of one rank: what it does between its start and its last word.

Either it is started as a file, `python -P rank.py <job.json>`: then the first thing that happens must be that this
process' life is tied to the launcher's, long before torch is imported (1.7 s), for which reason this file imports what
needs the standard library alone, and torch only inside functions. Or it is a copy of the launcher.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from stepbench import terminal
from stepbench.process import lifeline, storage

STACK_SIGNAL = signal.SIGUSR1
# Python's 700 would have it search in most steps.
ALLOCATIONS_BETWEEN_COLLECTIONS = 10_000


def outcome_path(folder: Path, rank: int) -> Path:
    """Return the file that holds a rank's last word."""
    return folder / f"rank-{rank}.json"


def stack_path(folder: Path, rank: int) -> Path:
    """Return the file into which a rank writes its stack when it gets `STACK_SIGNAL`."""
    return folder / f"rank-{rank}.stack"


def output_path(folder: Path, rank: int) -> Path:
    """Return the file that holds a rank's stdout and stderr."""
    return folder / f"rank-{rank}.log"


def main(job_file: str) -> None:
    """Run the job of `job_file` as the rank that the environment names."""
    folder = Path(job_file).parent
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    lifeline.die_with_parent(job["launcher"])
    rank = int(os.environ["RANK"])
    _redirect_output(output_path(folder, rank))
    # Written by the C library's signal handler, so it works while Python waits inside a collective.
    stack_file = stack_path(folder, rank).open("w")
    faulthandler.register(STACK_SIGNAL, file=stack_file, all_threads=False)
    faulthandler.enable(2)  # not what `sys.stderr` was in the launcher
    try:
        text = _as_json(_run(job))
    except Exception as error:
        from stepbench.process import failures

        outcome = {
            "reason": f"raised {failures.with_type(error)}",
            "exception": _qualified_name(type(error)),
            "kind": failures.kind_of(error),
            "message": failures.first_line(error),
            "traceback": traceback.format_exc(),
            "time_s": time.time(),
        }
        storage.write_atomically(outcome_path(folder, rank), json.dumps(outcome))
        # Leaving by the normal way would tear down a process group whose peers may wait, and that can hang.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    storage.write_atomically(outcome_path(folder, rank), text)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(
        0
    )  # Python's way through all of torch's modules takes a second, and frees nothing that the kernel does not


def main_of_a_copy(job_file: str) -> NoReturn:
    """Run the job in a copy of the launcher, and leave as a fresh process would, never into the launcher's own code."""
    os.setsid()  # a copy is in the launcher's group, and a rank is ended with its own
    code = 1
    try:
        main(job_file)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            terminal.say(error.code, sign="")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(job: dict[str, Any]) -> Any:
    """Join the process group, call the function, leave the group; return what the function returned."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(job["threads"])
    sys.path[:] = job["sys_path"]
    gc.disable()  # it would search half a million objects that stay: a quarter of the import's time
    import torch
    from torch import distributed

    gc.freeze()
    gc.enable()
    gc.set_threshold(ALLOCATIONS_BETWEEN_COLLECTIONS)
    torch.set_num_threads(job["threads"])
    device = None
    if job["backend"] == "nccl":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if job["interface"] is not None and sys.platform == "linux":
        # Otherwise Gloo asks the resolver for this machine's name, which may know none, or take its time.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", job["interface"])
    # Longer than the launcher waits, which is the one that can tell who hangs.
    distributed.init_process_group(job["backend"], timeout=timedelta(seconds=job["timeout_s"]), device_id=device)
    result = function(job["function"])(**job["arguments"])
    distributed.destroy_process_group()
    return result


def _as_json(result: Any) -> str:
    try:
        return json.dumps({"result": result}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`function` must return what JSON can hold, got {error}") from error


def function(where: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the function that `stepbench.parallel.launch.where` describes."""
    found: Any = _script(where["script"]) if where["script"] else importlib.import_module(where["module"])
    for name in where["qualname"].split("."):
        found = getattr(found, name)
    return found


def _script(path: str) -> ModuleType:
    """Run the launching script again under a name that its `__main__` guard refuses, as multiprocessing does."""
    module = ModuleType("__mp_main__")
    sys.modules["__mp_main__"] = module
    module.__dict__.update(runpy.run_path(path, run_name="__mp_main__"))
    return module


def _redirect_output(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
        os.dup2(source, target)
    os.close(descriptor)
    os.close(nothing)


def _qualified_name(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


if __name__ == "__main__":
    main(sys.argv[1])
