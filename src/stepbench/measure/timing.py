"""The timing protocol: warm up, synchronise, start, work, synchronise, stop.

Both synchronisations matter. Without the first, earlier work counts in the region; without the second, only the launch
is timed, and a GPU appears a hundred times faster than it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stepbench.measure import paging
from stepbench.measure.clock import Clock
from stepbench.measure.paging import Paging

MIN_REGION_S = 1e-4  # at least a thousand times the cost of the host clock itself (under 1e-7 s)


def time_whole(
    work: Callable[[], object],
    *,
    clock: Clock,
    repeats: int,
    paged: Paging | None = None,
    launched_s: list[float] | None = None,
) -> list[float]:
    """Return the seconds of each of `repeats` calls of `work`, synchronised before and after each.

    The caller warms up. `work` includes everything that belongs to one repeat. `paged` counts each region's faults;
    `launched_s` gets the seconds after which each call has returned, before the device was waited for.
    """
    samples = []
    for _ in range(repeats):
        before = paging.read()
        clock.synchronize()
        start = clock.now()
        work()
        if launched_s is not None:
            launched_s.append(clock.now() - start)
        clock.synchronize()
        samples.append(clock.now() - start)
        if paged is not None:
            paged.add(before, paging.read())
    return samples


def time_phases(
    phases: Mapping[str, Callable[[], object]],
    *,
    clock: Clock,
    repeats: int,
    paged: Mapping[str, Paging] | None = None,
) -> dict[str, list[float]]:
    """Return the seconds of each phase in each of `repeats` rounds over all phases, in order.

    The device is synchronised between phases, so their sum is a little longer than the whole (`time_whole`) on a device
    that would otherwise overlap the end of one phase with the start of the next. `paged` counts the faults of each.
    """
    samples: dict[str, list[float]] = {name: [] for name in phases}
    for _ in range(repeats):
        for name, work in phases.items():
            counted = None if paged is None else paged[name]
            samples[name].extend(time_whole(work, clock=clock, repeats=1, paged=counted))
    return samples


def loops_for(work: Callable[[], object], *, clock: Clock, min_region_s: float = MIN_REGION_S) -> int:
    """Return the number of calls of `work`, a power of two, that take at least `min_region_s` together.

    Raises:
        RuntimeError: a million calls take less than that.
    """
    loops = 1
    while loops <= 2**20:
        if time_whole(_repeated(work, loops), clock=clock, repeats=1)[0] >= min_region_s:
            return loops
        loops *= 2
    raise RuntimeError(f"the timed work must take measurable time, but {loops // 2} calls took under {min_region_s} s")


def time_loops(
    work: Callable[[], object], *, clock: Clock, repeats: int, loops: int, paged: Paging | None = None
) -> list[float]:
    """Return the seconds per call of `work` as means of `loops` calls in one region, `repeats` times.

    For work that is too short for the clock. `paged` counts each region's faults; its `calls` should be `loops`.
    """
    region = _repeated(work, loops)
    return [sample / loops for sample in time_whole(region, clock=clock, repeats=repeats, paged=paged)]


def _repeated(work: Callable[[], object], loops: int) -> Callable[[], None]:
    def region() -> None:
        for _ in range(loops):
            work()

    return region
