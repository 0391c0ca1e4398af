"""What the ranks of `test_slowest_rank.py` run: one of them is slower."""

from __future__ import annotations

import time
from typing import Any

from torch import distributed

from stepbench.measure import clock, timing

SLEEP_S = 0.05


def timed(*, setting: dict[str, Any]) -> dict[str, Any]:
    """Time an operation that takes rank 1 `SLEEP_S` longer, begun by both together."""
    samples = []
    for _ in range(setting["protocol"]["measured_steps"]):
        distributed.barrier()
        samples += timing.time_whole(_operation, clock=clock.for_device("cpu"), repeats=1)
    return {"samples": {"call_s": samples}}


def _operation() -> None:
    if distributed.get_rank() == 1:
        time.sleep(SLEEP_S)
