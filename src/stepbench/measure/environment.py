"""The machine and its software, read without importing torch. Unknown values are None."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from stepbench.measure import battery, cpu_quota, devices, nvml, software
from stepbench.measure.devices import Device

CPU_FOLDER = Path("/sys/devices/system/cpu")


def used(device: str) -> tuple[Device, ...]:
    """Return the accelerators that `device` names, in the order of torch's ordinals; none for a CPU."""
    found = devices.found()
    return found.devices if device == found.device else ()


def device_name(device: str) -> str:
    """Return the hardware's name of the device, or of the first of several: `NVIDIA H200`, `AMD EPYC`."""
    return device_names(device)[0]


def device_names(device: str) -> tuple[str, ...]:
    """Return the hardware's name of each device; one for a CPU and for Apple's, which is part of it."""
    return tuple(each.name for each in used(device) if each.name != device) or (_cpu_model(),)


def device_count(device: str) -> int:
    """Return the number of accelerators, or for `cpu` of the physical cores that this process may use."""
    return cores() if device == "cpu" else len(used(device))


def node() -> str:
    """Return the name by which a cluster, or the network, knows this machine."""
    return os.environ.get("SLURMD_NODENAME") or platform.node()


def comparable(device: str) -> dict[str, Any]:
    """Return in what the nodes of one measurement must be the same: devices, driver, software."""
    return {"device_names": list(device_names(device)), "driver": devices.driver(), **software.versions()}


def machine_name(device: str) -> str:
    """Return the name of the folder that holds this machine's records: `nvidia-h200-1x`, `amd-epyc-2c`.

    A machine with several models is named after each of them, with its number.
    """
    suffix = devices.KINDS[device].suffix
    names = device_names(device)
    if len(names) == 1:
        return f"{_slug(names[0])}-{device_count(device)}{suffix}"
    parts = [f"{_slug(name)}-{names.count(name)}{suffix}" for name in dict.fromkeys(names)]
    return "-".join(parts)[:80].strip("-")


def _slug(name: str) -> str:
    words = re.sub(r"\(r\)|\(tm\)|@.*|\bcpu\b|\bprocessor\b|\d+-core", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:60] or "unknown"


def cores() -> int:
    """Return the number of physical cores that this process may use, by its affinity and its control group's quota."""
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    # Half a core's worth of a second thread would be half a period's stop for both.
    quota = cpu_quota.cores()
    return max(1, min(physical, allowed, physical if quota is None else int(quota)))


def describe(device: str, root: Path) -> dict[str, Any]:
    """Return what is constant during a measurement: hardware, software, and the commit of `root`."""
    return {
        "device": device,
        "device_name": device_name(device),
        "device_count": device_count(device),
        "device_memory_bytes": next((each.memory_bytes for each in used(device)), None),
        "devices": [{**asdict(each), **nvml.facts(each.uuid)} for each in used(device)],
        "host_memory_bytes": psutil.virtual_memory().total,
        "cpu": _cpu_model(),
        "cpu_cores": cores(),
        "os": platform.platform(),
        "driver": devices.driver(),
        **software.versions(),
        "python": platform.python_version(),
        **_commit(root),
    }


def state(device: str, count: int | None = None) -> dict[str, Any]:
    """Return what can change during a measurement: load, clocks, throttling, processes on the device, the battery.

    Args:
        device: `cpu`, or one whose devices are looked at.
        count: how many of these, from the first; None for all. A cell on one GPU is not disturbed by another's work.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    reading: dict[str, Any] = {
        "on_battery": battery.in_use(),
        "load_average_1min": load,
        "host_memory_available_bytes": psutil.virtual_memory().available,
        "cpu_frequency_hz": _cpu_frequency(),
        "cpu_throttle_count": _cpu_throttle_count(),
    }
    if found := used(device)[:count]:
        reading["gpus"] = [nvml.state(each.uuid) for each in found]
    return reading


def activity(device: str, position: int = 0) -> dict[str, float | None]:
    """Return a device's load: `utilisation_ratio`, `power_watts`, `sm_clock_hz`; None where it is not reported.

    Args:
        device: for `cpu` the cores are read, over the time since this thread's last call.
        position: the ordinal among several devices.
    """
    if not (found := used(device)):
        return {"utilisation_ratio": psutil.cpu_percent() / 100, "power_watts": None, "sm_clock_hz": None}
    return nvml.activity(found[position].uuid)


def oom_kills() -> int | None:
    """Return how many processes the kernel's OOM killer has killed since the host started, or None if unknown."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


@functools.cache
def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    sysctl = shutil.which("sysctl")
    if sysctl:
        done = subprocess.run([sysctl, "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return platform.processor() or platform.machine() or "unknown"


def _cpu_frequency() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError):
        return None
    return frequency.current * 1e6 if frequency and frequency.current else None


def _cpu_throttle_count() -> int | None:
    """Return how often the cores have throttled because of heat since the host started; only Intel's report it."""
    found = 0
    files = sorted(CPU_FOLDER.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
    for file in files:
        try:
            found += int(file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
    return found if files else None


def _commit(root: Path) -> dict[str, Any]:
    # git refuses a checkout of another user (a bind mount, a CI container); the code in it is running already.
    command = ["git", "-c", "safe.directory=*", "-C", str(root)]

    def git(*words: str) -> str | None:
        """Return what git answers, or None where it fails."""
        try:
            done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": None if status is None else bool(status)}
