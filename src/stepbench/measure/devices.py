"""The devices of this machine: the one place where CUDA, ROCm, XPU, MPS and the CPU differ. No torch is imported here.

Which devices there are is torch's to say, because it is torch that will use them; a child asks it
(`stepbench.measure.device_probe`), and the answer is kept until torch, the driver or the variables that hide devices
change. NVML adds what torch does not know, found by UUID: the two number GPUs differently.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stepbench.measure import nvml, software

# Of every process that measures: CUDA's own order is the fastest first, which NVML's is not.
ENVIRONMENT = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
HIDING = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
    "ONEAPI_DEVICE_SELECTOR",
)
HIDES_ALL = ("", "-1", "NoDevFiles", "none")  # of CUDA_VISIBLE_DEVICES, said on purpose
PROBE_S = 180.0  # a first context on eight GPUs without persistence mode takes some ten seconds
MENDING = "mend that, or set `device: cpu` in config.yaml to measure the CPU"


@dataclass(frozen=True)
class Kind:
    """What the code asks of a kind of device instead of its name.

    Attributes:
        is_gpu: whether its cells are those of the gpu grids.
        counts_memory: whether torch's allocator counts what is allocated on it.
        has_events: whether its streams can be timed between two events, and held; torch profiles its kernels.
        backend: what its ranks talk through, or None where there are no ranks.
        workers: processes that read ahead for each rank.
        suffix: of the machine's name, after the number of devices.
    """

    is_gpu: bool
    counts_memory: bool
    has_events: bool
    backend: str | None
    workers: int
    suffix: str


# ROCm calls its devices `cuda`. Workers of ranks on a CPU share the cores with what they feed.
KINDS = {
    "cuda": Kind(is_gpu=True, counts_memory=True, has_events=True, backend="nccl", workers=4, suffix="x"),
    "xpu": Kind(is_gpu=True, counts_memory=True, has_events=False, backend=None, workers=4, suffix="x-xpu"),
    "mps": Kind(is_gpu=False, counts_memory=False, has_events=False, backend=None, workers=1, suffix="x-mps"),
    "cpu": Kind(is_gpu=False, counts_memory=False, has_events=False, backend="gloo", workers=1, suffix="c"),
}


@dataclass(frozen=True)
class Device:
    """A device that torch can use.

    Attributes:
        name: such as `NVIDIA H200`, or of a slice `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
        uuid: as torch writes it, without a prefix; None where there is none.
        memory_bytes: of the device, or of the slice; None where it is not told.
        capability: CUDA's compute capability, such as `9.0`.
        multiprocessors: their number.
        problem: what a small product on it raised; None if it computes.
    """

    name: str
    uuid: str | None = None
    memory_bytes: int | None = None
    capability: str | None = None
    multiprocessors: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Found:
    """The accelerator of this machine.

    Attributes:
        device: `cuda`, `xpu` or `mps`, or None.
        runtime: `cuda`, `rocm`, `xpu` or `mps`, or None.
        devices: in the order of torch's ordinals.
        problem: one sentence why the accelerator that is there cannot be used, with what to do.
    """

    device: str | None = None
    runtime: str | None = None
    devices: tuple[Device, ...] = ()
    problem: str | None = None


# One of these is there where a kernel module for an accelerator is loaded: NVIDIA's, Jetson's, WSL's, AMD's, Intel's.
DEV, DEVICE_FILES = Path("/dev"), ("nvidiactl", "nvidia0", "nvmap", "nvgpu", "dxg", "kfd", "dri")
NVIDIA_FILES = ("nvidia[0-9]*", "nvmap")  # of those, what only an NVIDIA GPU has


@functools.cache
def found() -> Found:
    """Return the accelerator of this machine; asked once in a process."""
    driver = nvml.read()
    said = _probe(driver)
    devices = tuple(Device(**each) for each in said["devices"])
    return Found(said["device"], said["runtime"], devices, _problem(driver, devices, said["problem"]))


def find(wanted: str = "auto") -> str:
    """Return the device to measure on: `wanted`, or for `auto` this machine's accelerator, or else the CPU.

    Raises:
        ValueError: `wanted` is unknown or not on this machine, or there is an accelerator that cannot be used.
    """
    if wanted not in ("auto", *KINDS):
        raise ValueError(f"`device` must be one of auto, {', '.join(KINDS)}, got {wanted!r}")
    if wanted == "cpu":
        return wanted
    here = found()
    if here.problem is not None:
        raise ValueError(here.problem)
    if wanted == "auto":
        return here.device or "cpu"
    if wanted != here.device:
        present = ", ".join(filter(None, (here.device, "cpu")))
        raise ValueError(f"`device` must be one that this machine has ({present}), got {wanted}")
    return wanted


def unasked() -> str | None:
    """Return that the driver of the NVIDIA GPUs that are here cannot be asked, and what to do; or None."""
    if found().runtime != "cuda" or importlib.util.find_spec("pynvml") is not None:
        return None
    return (
        "nvidia-ml-py is not installed, so the driver's version, clocks, throttling, load, power and energy are not "
        "recorded: pip install nvidia-ml-py"
    )


def driver() -> str | None:
    """Return the version of the NVIDIA driver."""
    return nvml.read().version


def _problem(driver: nvml.Driver, devices: tuple[Device, ...], reason: str | None) -> str | None:
    """Return what torch and the driver say differently, as one sentence with what to do."""
    versions = software.versions()
    torch = f"torch {versions['torch']}"
    for ordinal, device in enumerate(devices):
        if device.problem is not None:
            others = ",".join(
                name for name, each in zip(_chosen(devices), devices, strict=True) if each.problem is None
            )
            leave = f", leave it out (CUDA_VISIBLE_DEVICES={others})" if others else ""
            seen = f"{torch} sees GPU {ordinal}, {device.name}, but cannot compute on it"
            return f"{seen}: {device.problem}{leave}; {MENDING}"
    if devices or os.environ.get("CUDA_VISIBLE_DEVICES", "?").strip() in HIDES_ALL:
        return None
    if (built := software.built_for_others()) is not None:  # nobody gets such a build unasked
        is_hidden = any(os.environ.get(name, "?").strip() in HIDES_ALL for name in HIDING)
        return None if is_hidden else f"{torch} is built for {built}, but {reason or 'it finds no device'}; {MENDING}"
    if driver.problem is not None:
        return f"the NVIDIA driver does not answer ({driver.problem}), and {torch} finds no GPU; {MENDING}"
    if driver.gpus:
        names = _named([gpu.name for gpu in driver.gpus])
        shown = f"the NVIDIA driver {driver.version or 'of this machine'} shows {names}"
    elif files := sorted(str(file) for name in NVIDIA_FILES for file in DEV.glob(name)):
        shown = f"the NVIDIA driver cannot be asked, but its devices are there ({', '.join(files)})"
    else:
        return None
    if versions["cuda"] is None:
        return (
            f"{shown}, but torch must be built with CUDA to use it, got {versions['torch']}: install it again "
            "(rm -r .venv and make report CPU_INDEX=, or UV_NO_GROUP=cpu uv sync), or set `device: cpu` in config.yaml"
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        reason = f"CUDA_VISIBLE_DEVICES is {hidden!r}, which names none of them"
    return f"{shown}, but {torch} (CUDA {versions['cuda']}) cannot use it: {reason or 'it finds no device'}; {MENDING}"


def _chosen(devices: tuple[Device, ...]) -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES calls each device: its ordinals count what the user has chosen already."""
    chosen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return chosen if len(chosen) == len(devices) and all(chosen) else list(map(str, range(len(devices))))


def _named(names: list[str]) -> str:
    counts = {name: names.count(name) for name in names}
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items())


def _probe(driver: nvml.Driver) -> dict[str, Any]:
    """Return what torch says, from the file of an earlier answer where nothing has changed."""
    none: dict[str, Any] = {"device": None, "runtime": None, "devices": [], "problem": None}
    if sys.platform == "darwin":
        apple = {"device": "mps", "runtime": "mps", "devices": [asdict(Device("mps"))], "problem": None}
        return apple if platform.machine() == "arm64" else none
    if not software.has_accelerator():
        return none
    key: list[Any] = [software.versions(), sys.executable, asdict(driver), platform.node(), _boot()]
    key += [os.environ.get(name) for name in (*HIDING, "NVIDIA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")]
    key += [sorted(each.name for each in DEV.glob("nvidia[0-9]*"))]  # or without NVML a GPU more would not be seen
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    file = Path(tempfile.gettempdir(), f"stepbench-{os.getuid()}-devices-{digest}.json")
    with contextlib.suppress(OSError, ValueError):
        if file.stat().st_uid == os.getuid():
            return json.loads(file.read_text(encoding="utf-8"))
    said = _ask_torch()
    # A machine that is being mended is asked again; one that has nothing to mend is not, though torch complains there.
    fine = not said["problem"] and not any(device["problem"] for device in said["devices"])
    if fine or (driver == nvml.Driver() and not any(Path(DEV, name).exists() for name in DEVICE_FILES)):
        with contextlib.suppress(OSError):
            fresh = file.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(said), encoding="utf-8")
            fresh.replace(file)
    return said


def _ask_torch() -> dict[str, Any]:
    command = [sys.executable, "-m", "stepbench.measure.device_probe"]
    none: dict[str, Any] = {"device": None, "runtime": None, "devices": []}
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {**none, "problem": f"it did not answer within {PROBE_S:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = next(reversed(done.stderr.strip().splitlines()), f"exit status {done.returncode}")
        return {**none, "problem": f"it ended with: {last}"}
    return json.loads(lines[-1])


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
