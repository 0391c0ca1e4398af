"""Checks that no test leaves a process behind."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator

import psutil
import pytest


def ranks_of_this_process() -> set[psutil.Process]:
    """Return the living rank processes below this one, and all others that multiprocessing started."""
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
    # A pytest worker keeps the process with interpreted kernels, and perhaps a loader's, until it ends.
    others = ranks_of_this_process()
    yield
    end = time.monotonic() + 1
    while ranks_of_this_process() - others and time.monotonic() < end:
        time.sleep(0.05)
    assert ranks_of_this_process() - others == set()
