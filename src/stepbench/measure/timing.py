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


def time_whole(work: Callable[[], object], *, clock: Clock, repeats: int, paged: Paging | None = None) -> list[float]:
    """Return the seconds of each of `repeats` calls of `work`, synchronised before and after each.

    The caller warms up. `work` includes everything that belongs to one repeat. `paged` counts each region's faults.
    """
    samples = []
    for _ in range(repeats):
        before = paging.read()
        clock.synchronize()
        start = clock.now()
        work()
        clock.synchronize()
        samples.append(clock.now() - start)
        if paged is not None:
            paged.add(before, paging.read())
    return samples


def time_on_device(work: Callable[[], object], *, before: Callable[[], object], repeats: int) -> list[float]:
    """Return the seconds that a CUDA device spends on `work`, between two events on its stream, `repeats` times.

    For kernels of some ten microseconds, for which the host clock would measure the launch instead of the work. There
    is no synchronisation between `before` and the first event: the stream keeps their order, and while the device is
    busy with `before` the host launches `work`, so that the launch does not count.

    Args:
        work: the timed function.
        before: launched before each repeat, outside the region; it may clear the L2 cache.
        repeats: number of samples.
    """
    import torch

    samples = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        samples.append(start.elapsed_time(end) / 1000)
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
