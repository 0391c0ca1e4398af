"""Many checks in one launch: a rank function runs a module's checks one after the other, and tells how each ended."""

from __future__ import annotations

import importlib
import traceback
from datetime import timedelta
from typing import Any

from torch import distributed as dist

from stepbench.parallel.launch import launch

PREFIX = "check_"
PATIENCE = timedelta(seconds=30)  # for the other ranks, at the end of a check


def names(module: Any) -> list[str]:
    """Return the checks of a module, in the order of its source."""
    return [name for name in vars(module) if name.startswith(PREFIX)]


def run(*, module: str, arguments: dict[str, Any]) -> dict[str, str]:
    """Run all checks of a module on this rank; return the traceback of each that failed, and "" for the others.

    A check that fails on one rank alone may leave the others waiting for it; then this rank ends with what went wrong
    when it has waited `PATIENCE` for them.
    """
    found = importlib.import_module(module)
    report = {}
    for name in names(found):
        try:
            getattr(found, name)(**arguments.get(name, {}))
            report[name] = ""
        except Exception:
            report[name] = traceback.format_exc()
            print(f"rank {dist.get_rank()}: {name}\n{report[name]}", flush=True)
        try:
            dist.monitored_barrier(timeout=PATIENCE)
        except RuntimeError as error:
            raise RuntimeError(f"{name}: {report[name] or 'another rank has not come back'}") from error
    return report


def on_ranks(module: Any, ranks: int, arguments: dict[str, Any] | None = None) -> dict[str, str]:
    """Return what went wrong in each check on any rank."""
    reports = launch(
        run, ranks, arguments={"module": module.__name__, "arguments": arguments or {}}, backend="gloo", deadline_s=240
    )
    return {name: "\n".join(filter(None, (report[name] for report in reports))) for name in names(module)}
