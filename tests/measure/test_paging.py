"""The kernel's counters around timed regions."""

import itertools
import mmap

import pytest
from tests.measure.fake_clock import FakeClock

from stepbench.measure import paging, timing
from stepbench.measure.paging import Paging, Reading


def test_new_pages_are_counted_in_the_region_that_touches_them() -> None:
    pages, paged = 512, Paging()
    blocks = [mmap.mmap(-1, pages * mmap.PAGESIZE) for _ in range(3)]
    endless = iter(blocks)

    def touch() -> None:
        block = next(endless)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            block.madvise(mmap.MADV_NOHUGEPAGE)
        for start in range(0, len(block), mmap.PAGESIZE):
            block[start] = 1

    timing.time_whole(touch, clock=FakeClock(itertools.count()), repeats=3, paged=paged)
    assert len(paged.page_faults) == len(paged.system_s) == 3
    assert all(pages <= count < 1.5 * pages for count in paged.page_faults)
    assert all(seconds >= 0 for seconds in paged.system_s)
    for block in blocks:
        block.close()


def test_several_calls_in_a_region_are_counted_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = itertools.chain.from_iterable((Reading(10, 1.0), Reading(18, 1.4)) for _ in range(2))
    monkeypatch.setattr(paging, "read", lambda: next(readings))
    paged = Paging(calls=4)
    timing.time_loops(lambda: None, clock=FakeClock(itertools.count()), repeats=2, loops=4, paged=paged)
    assert paged.samples("call") == {"call_page_faults": [2, 2], "call_system_s": pytest.approx([0.1, 0.1])}


def test_a_counter_that_steps_back_is_no_negative_time() -> None:
    paged = Paging()
    paged.add(Reading(5, 1.0), Reading(5, 0.99))
    assert paged.samples("step") == {"step_page_faults": [0], "step_system_s": [0.0]}
