"""No test leaves a process behind."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator

import psutil
import pytest


def ranks_of_this_process() -> set[psutil.Process]:
    """Return the processes of ranks below this one that are still there, and whatever else multiprocessing started."""
    found = set()
    forked = {process.pid for process in multiprocessing.active_children()}
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE and (
                process.pid in forked or any("job.json" in word for word in process.cmdline())
            ):
                found.add(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(autouse=True)
def _no_rank_is_left() -> Iterator[None]:
    # A worker of pytest's keeps the process with interpreted kernels until its end, and perhaps a loader's.
    others = ranks_of_this_process()
    yield
    end = time.monotonic() + 1
    while ranks_of_this_process() - others and time.monotonic() < end:
        time.sleep(0.05)
    assert ranks_of_this_process() - others == set()
