"""What is counted, on a clock of scripted ticks."""

from __future__ import annotations

import itertools

import pytest
import torch

from stepbench.parallel import traffic as module
from stepbench.parallel.traffic import Traffic


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that shows what the test puts into the list."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_busy_waited_and_hidden(clock: list[float]) -> None:
    counter = Traffic(torch.device("cpu"))
    clock[0] = 10.0
    counter.reset()
    # Two gathers, which overlap, from 1 to 5; a reduction from 7 to 8. Waited: 4 to 5, and 7 to 8.
    clock[0] = 11.0
    first = counter.start("all_gather", 100)
    clock[0] = 12.0
    second = counter.start("all_gather", 50)
    clock[0] = 13.0
    counter.finish(first)
    clock[0] = 14.0
    with counter.waiting("all_gather"):
        clock[0] = 15.0
    counter.finish(second)
    clock[0] = 16.0
    counter.finish(second)  # the first end stands
    clock[0] = 17.0
    third = counter.start("all_reduce", 7)
    with counter.waiting("all_reduce"):
        clock[0] = 18.0
    counter.finish(third)
    assert (counter.calls, counter.payload_bytes) == (3, 157)
    assert [(each.start_s, each.end_s) for each in counter.transfers] == [(1, 3), (2, 5), (7, 8)]
    assert (counter.busy_s(), counter.busy_s("all_gather"), counter.busy_s("all_reduce")) == (5, 4, 1)
    assert (counter.wait_s(), counter.wait_s("all_gather"), counter.wait_s("broadcast")) == (2, 1, 0)


def test_what_has_not_ended_is_not_busy(clock: list[float]) -> None:
    counter = Traffic(torch.device("cpu"))
    counter.start("all_reduce", 1)
    clock[0] = 5.0
    assert counter.busy_s() == 0
    assert counter.transfers[0].end_s is None


def test_a_counter_that_nobody_resets_stays_small(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 10)
    counter = Traffic(torch.device("cpu"))
    for tick in itertools.islice(itertools.count(1.0), 100):
        transfer = counter.start("all_reduce", 3)
        with counter.waiting("all_reduce"):
            clock[0] = tick
        counter.finish(transfer)
    assert (counter.calls, counter.payload_bytes, counter.wait_s()) == (100, 300, 100)
    assert len(counter.transfers) == 10
