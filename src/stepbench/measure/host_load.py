"""How much of this host's processors went to others while a cell was measured.

A cell that shares its cores is slower, and its samples alone do not say why. The kernel counts how long each core was
busy, and how much of that each process has used; the rest went to others. On a virtual machine it also counts the time
in which the hypervisor gave a core to another guest.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import psutil

COUNTED = 0.5  # of our own time must be found in what the cores have counted, or they count nothing (in a sandbox)


@dataclass(frozen=True)
class Reading:
    """What the counters say at one moment.

    Attributes:
        now_s: the time, from an arbitrary zero.
        cores: how many logical cores this process may run on.
        busy_s: how long these were busy since the host started, added up.
        stolen_s: how long they were another guest's.
        own_s: what this process has used, with all that it started.
    """

    now_s: float
    cores: int
    busy_s: float
    stolen_s: float
    own_s: float


def read() -> Reading | None:
    """Return the counters, or None on a system that does not tell them for each core and each ended process."""
    if sys.platform != "linux":
        return None
    allowed = os.sched_getaffinity(0)
    found = [times for core, times in enumerate(psutil.cpu_times(percpu=True)) if core in allowed]
    own = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # one that has just ended is its parent's by now
            own += sum(process.cpu_times()[:4])  # user, system, and both of the children that it has waited for
    return Reading(
        now_s=time.monotonic(),
        cores=len(found),
        busy_s=sum(times.user + times.nice + times.system + times.irq + times.softirq for times in found),
        stolen_s=sum(times.steal for times in found),
        own_s=own,
    )


def between(first: Reading | None, last: Reading | None) -> dict[str, Any] | None:
    """Return what happened between two readings, or None where that is not known.

    Returns:
        `wall_s`; `cores`; `own_cpu_s` of the process and all that it started; `others_cpu_s` of other processes and the
        kernel on its own account; `stolen_cpu_s` of the hypervisor's other guests. The kernel counts in hundredths of a
        second.
    """
    if first is None or last is None or not last.cores:
        return None
    own, busy = last.own_s - first.own_s, last.busy_s - first.busy_s
    if busy < COUNTED * own:
        return None
    return {
        "wall_s": last.now_s - first.now_s,
        "cores": last.cores,
        "own_cpu_s": max(0.0, own),
        "others_cpu_s": max(0.0, busy - own),
        "stolen_cpu_s": max(0.0, last.stolen_s - first.stolen_s),
    }
