"""No test leaves a process behind."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest


def ranks_of_this_process() -> list[psutil.Process]:
    """Return the processes of ranks below this one that are still there."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any("job.json" in word for word in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(autouse=True)
def _no_rank_is_left() -> Iterator[None]:
    yield
    end = time.monotonic() + 1
    while ranks_of_this_process() and time.monotonic() < end:
        time.sleep(0.05)
    assert ranks_of_this_process() == []
