"""The load of the host's CPU by other processes, and CPU steal, during a measurement.

A cell that shares its cores is slower, and its samples do not say why. The kernel counts how long each core was busy,
and how much of that each process used; the rest is other processes. On a virtual machine it also counts CPU steal, the
time in which the hypervisor ran another guest.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import psutil

from stepbench.measure import cpu_quota

# At least this share of our own time must appear in the cores' counters; in some sandboxes they count nothing.
COUNTED = 0.5


@dataclass(frozen=True)
class Reading:
    """The counters at one moment.

    Attributes:
        now_s: time since an arbitrary moment.
        cores: number of logical cores that this process may run on.
        busy_s: busy time of these cores since the host started, summed.
        stolen_s: their CPU steal, summed.
        own_s: CPU time of this process and of everything that it started.
        stopped_s: for how long a quota of cores has stopped the control group of this process, such as a container.
    """

    now_s: float
    cores: int
    busy_s: float
    stolen_s: float
    own_s: float
    stopped_s: float = 0.0


def read() -> Reading | None:
    """Return the counters, or None on a system without counters per core and for ended processes (not Linux)."""
    if sys.platform != "linux":
        return None
    allowed = os.sched_getaffinity(0)
    found = [times for core, times in enumerate(psutil.cpu_times(percpu=True)) if core in allowed]
    own = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # one that has just ended is counted in its parent
            own += sum(process.cpu_times()[:4])  # user, system, and both of its reaped children
    return Reading(
        now_s=time.monotonic(),
        cores=len(found),
        busy_s=sum(times.user + times.nice + times.system + times.irq + times.softirq for times in found),
        stolen_s=sum(times.steal for times in found),
        own_s=own,
        stopped_s=cpu_quota.stopped_s(),
    )


def between(first: Reading | None, last: Reading | None) -> dict[str, Any] | None:
    """Return the CPU time between two readings, or None where it is unknown.

    Returns:
        `wall_s`; `cores`; `own_cpu_s` of this process and everything that it started; `others_cpu_s` of other processes
        and the kernel itself; `stolen_cpu_s`, the CPU steal; `stopped_s`, in which a quota of cores stopped the
        process. The kernel counts in hundredths of a second.
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
        "stopped_s": max(0.0, last.stopped_s - first.stopped_s),
    }
