"""The quota of a container's cores (`docker --cpus 1.5`): how many it allows, and for how long it stopped us.

The kernel stops a control group that has used up its share of a period, until the next one: 100 ms each, unless set
otherwise. A process with more threads than the quota allows is stopped in most periods, and its samples do not say so.

Source: "CPU Controller" in the kernel's cgroup-v2.rst (`cpu.max`, `cpu.stat`), and sched-bwc.rst for version 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cores() -> float | None:
    """Return how many cores the tightest quota of this process' control groups allows, or None without one."""
    return min(filter(None, map(_allowed, _groups())), default=None)


def stopped_s() -> float:
    """Return for how many seconds the quotas have stopped the control groups so far; the longest of them."""
    return max(map(_stopped_s, _groups()), default=0.0)


def _groups() -> Iterator[Path]:
    """Yield the folders of this process' control groups for the CPU, from its own to the outermost that is seen here.

    Inside of a container its own group may be the root of what is mounted, whatever its path outside.
    """
    with contextlib.suppress(OSError):
        for line in MEMBERSHIP.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            for root in (MOUNT / "cpu", MOUNT / "cpu,cpuacct") if controllers else (MOUNT, MOUNT / "unified"):
                inner = root / path.lstrip("/")
                for folder in (inner, *inner.parents):
                    if folder.is_dir() and folder.is_relative_to(root):
                        yield folder


def _allowed(group: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota_us, period_us = (
            int((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii")) for name in ("quota", "period")
        )
        return quota_us / period_us if quota_us > 0 else None  # -1: none
    return None


def _stopped_s(group: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        words = (group / "cpu.stat").read_text(encoding="ascii").split()
        found = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        return found["throttled_usec"] / 1e6 if "throttled_usec" in found else found.get("throttled_time", 0) / 1e9
    return 0.0
