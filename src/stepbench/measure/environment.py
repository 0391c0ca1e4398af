"""The machine and its software, read without importing torch. Unknown values are None."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from stepbench.measure import software

DEVICES = ("cuda", "mps", "cpu")
CPU_FOLDER = Path("/sys/devices/system/cpu")


@functools.cache
def gpus() -> tuple[dict[str, Any], ...]:
    """Return index, name, memory in bytes and UUID of each visible NVIDIA GPU; empty without a driver.

    A GPU that is lost is none; one that shares the host's memory (GB10, Jetson) has None for its own.
    """
    with open_nvml() as nvml:
        if nvml is None:
            return ()
        found = []
        for index in range(nvml.nvmlDeviceGetCount()):
            with contextlib.suppress(nvml.NVMLError):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                gpu = {"name": nvml.nvmlDeviceGetName(handle), "uuid": nvml.nvmlDeviceGetUUID(handle)}
                found.append({"index": index, **gpu, "memory_bytes": _memory_bytes(nvml, handle)})
    return tuple(_visible(found, os.environ.get("CUDA_VISIBLE_DEVICES")))


def _memory_bytes(nvml: Any, handle: Any) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:
        return None


def find_device(wanted: str = "auto") -> str:
    """Return the device to measure on: `wanted`, or for `auto` the first available of CUDA, MPS and CPU.

    Raises:
        ValueError: `wanted` is unknown or not available on this machine, or the environment names a slice of a GPU,
            which would be no GPU and so the CPU.
    """
    setting = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if wanted in ("auto", "cuda") and setting.startswith("MIG-") and driver() is not None:
        told = f"`CUDA_VISIBLE_DEVICES` must name whole GPUs, got {setting!r}, a slice of one (MIG)"
        raise ValueError(f"{told}; name a whole one, or set `device: cpu`")
    present = {"cuda": bool(gpus()), "mps": sys.platform == "darwin" and platform.machine() == "arm64", "cpu": True}
    if wanted == "auto":
        return next(device for device in DEVICES if present[device])
    if wanted not in present:
        raise ValueError(f"`device` must be one of auto, {', '.join(DEVICES)}, got {wanted!r}")
    if not present[wanted]:
        here = ", ".join(device for device in DEVICES if present[device])
        raise ValueError(f"`device` must be one that this machine has ({here}), got {wanted}")
    return wanted


def device_name(device: str) -> str:
    """Return the hardware's name of the device, such as `NVIDIA H200` or `AMD EPYC`."""
    return str(gpus()[0]["name"]) if device == "cuda" else _cpu_model()


def device_count(device: str) -> int:
    """Return the number of GPUs for `cuda`, the number of physical cores that this process may use for `cpu`, or 1."""
    if device == "cuda":
        return len(gpus())
    return cores() if device == "cpu" else 1


def machine_name(device: str) -> str:
    """Return the name of the folder that holds this machine's records, such as `nvidia-h200-1x` or `amd-epyc-2c`."""
    words = re.sub(r"\(r\)|\(tm\)|@.*|\bcpu\b|\bprocessor\b|\d+-core", " ", device_name(device).lower())
    slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:60] or "unknown"
    return f"{slug}-{device_count(device)}" + {"cuda": "x", "cpu": "c", "mps": "x-mps"}[device]


def cores() -> int:
    """Return the number of physical cores that this process may use."""
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


def driver() -> str | None:
    """Return the version of the NVIDIA driver."""
    with open_nvml() as nvml:
        return None if nvml is None else str(nvml.nvmlSystemGetDriverVersion())


def describe(device: str, root: Path) -> dict[str, Any]:
    """Return what is constant during a measurement: hardware, software, and the commit of `root`."""
    return {
        "device": device,
        "device_name": device_name(device),
        "device_count": device_count(device),
        "device_memory_bytes": gpus()[0]["memory_bytes"] if device == "cuda" else None,
        "host_memory_bytes": psutil.virtual_memory().total,
        "cpu": _cpu_model(),
        "cpu_cores": cores(),
        "os": platform.platform(),
        "driver": driver(),
        **software.versions(),
        "python": platform.python_version(),
        **_commit(root),
    }


def state(device: str) -> dict[str, Any]:
    """Return what can change during a measurement: load, clocks, temperature, throttling, processes on the device."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    reading: dict[str, Any] = {
        "load_average_1min": load,
        "host_memory_available_bytes": psutil.virtual_memory().available,
        "cpu_frequency_hz": _cpu_frequency(),
        "cpu_throttle_count": _cpu_throttle_count(),
    }
    if device == "cuda":
        reading["gpus"] = [_gpu_state(gpu["index"]) for gpu in gpus()]
    return reading


def activity(device: str, position: int = 0) -> dict[str, float | None]:
    """Return a device's load: `utilisation_ratio`, `power_watts`, `sm_clock_hz`; None where it is not reported.

    Args:
        device: `cuda`; for any other device the CPU's cores are read, over the time since this thread's last call.
        position: index among the GPUs that this process may use.
    """
    if device != "cuda":
        return {"utilisation_ratio": psutil.cpu_percent() / 100, "power_watts": None, "sm_clock_hz": None}
    with open_nvml() as nvml:
        handle = None if nvml is None else nvml.nvmlDeviceGetHandleByIndex(gpus()[position]["index"])
        questions = {
            "utilisation_ratio": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            "power_watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "sm_clock_hz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) * 1e6,
        }
        return dict.fromkeys(questions) if nvml is None else _answers(nvml, questions)


def oom_kills() -> int | None:
    """Return how many processes the kernel's OOM killer has killed since the host started, or None if unknown."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


def _gpu_state(index: int) -> dict[str, Any]:
    with open_nvml() as nvml:
        if nvml is None:
            return {}
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        questions = {
            "sm_clock_hz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) * 10**6,
            "memory_clock_hz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM) * 10**6,
            "max_sm_clock_hz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM) * 10**6,
            "throttle_reasons_bitmask": lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
            "held_back_by_power_s": lambda: _held_back_s(nvml, handle, nvml.NVML_PERF_POLICY_POWER),
            "held_back_by_heat_s": lambda: _held_back_s(nvml, handle, nvml.NVML_PERF_POLICY_THERMAL),
            "temperature_celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            "power_watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "memory_used_bytes": lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
            "processes": lambda: sorted(p.pid for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
        }
        return _answers(nvml, questions)


def _answers(nvml: Any, questions: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for key, ask in questions.items():
        try:
            answers[key] = ask()
        except nvml.NVMLError:  # this device does not report it
            answers[key] = None
    return answers


def _held_back_s(nvml: Any, handle: Any, policy: int) -> float:
    """Return for how many seconds a GPU has lowered its clocks for one reason since its driver was loaded."""
    return nvml.nvmlDeviceGetViolationStatus(handle, policy).violationTime / 1e9


@contextlib.contextmanager
def open_nvml() -> Iterator[Any]:
    """Yield pynvml, initialised, or None where there is no NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _visible(found: list[dict[str, Any]], setting: str | None) -> list[dict[str, Any]]:
    if setting is None:
        return found
    chosen = []
    for word in (part.strip() for part in setting.split(",")):
        match = [gpu for gpu in found if word == str(gpu["index"]) or (word and gpu["uuid"].startswith(word))]
        if not match:
            break  # like CUDA, ignore everything after the first unknown entry
        chosen += match
    return chosen


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
        try:
            done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": None if status is None else bool(status)}
