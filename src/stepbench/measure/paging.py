"""Page faults and system time of timed regions: what the kernel did meanwhile, above all for new pages of memory.

Memory that is mapped anew is cleared by the kernel at its first use, a page of 4 KiB in 0.25 to 2 us. No clock tells
that from computing.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reading:
    """The counters of this process, all its threads together.

    Attributes:
        page_faults: minor and major ones so far.
        system_s: processor time inside the kernel so far. Linux counts it by ticks on many systems: that of one short
            region is rough, that of all regions together is not.
    """

    page_faults: int
    system_s: float


def read() -> Reading:
    """Return the counters. It takes 1 to 2 us (measured), before the clock is read and after."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Reading(used.ru_minflt + used.ru_majflt, used.ru_stime)


@dataclass
class Paging:
    """Counts regions, one entry for each.

    Attributes:
        calls: of the work in a region; what is kept is per call.
        page_faults: per call, in run order.
        system_s: per call, in run order.
    """

    calls: int = 1
    page_faults: list[float] = field(default_factory=list)
    system_s: list[float] = field(default_factory=list)

    def add(self, before: Reading, after: Reading) -> None:
        """Add the region between two readings."""
        self.page_faults.append((after.page_faults - before.page_faults) / self.calls)
        self.system_s.append(max(0.0, after.system_s - before.system_s) / self.calls)

    def samples(self, name: str) -> dict[str, list[float]]:
        """Return `<name>_page_faults` and `<name>_system_s`, as long as the samples of the time itself."""
        return {f"{name}_page_faults": self.page_faults, f"{name}_system_s": self.system_s}
