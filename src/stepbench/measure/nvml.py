"""Questions to the NVIDIA driver (NVML). A question that is refused is answered with None, whatever the reason.

Many devices refuse some of them: GB10 and Jetson have no memory of their own, a container may lack the permission, and
a GPU that has fallen off the bus answers nothing. A slice of a GPU (MIG) has memory and processes; its clocks, limits
and modes are those of the whole one, of which they are asked; power, energy and load of its own nobody knows.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOT_LOADED, NOT_INSTALLED = 9, 12  # NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_LIBRARY_NOT_FOUND
PCI, NVIDIA, DISPLAY = Path("/sys/bus/pci/devices"), "0x10de", "0x03"  # vendor, and how a GPU's class begins
MOST_NVLINKS = 18  # of a GPU, in NVML's numbering: NVML_NVLINK_MAX_LINKS


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver shows.

    Attributes:
        name: such as `NVIDIA H200`.
        uuid: `GPU-…`, or None.
    """

    name: str
    uuid: str | None


@dataclass(frozen=True)
class Driver:
    """What the driver says of itself.

    Attributes:
        version: such as `580.95.05`; None where there is no driver or it does not say.
        gpus: those that answer, in the order of the bus.
        problem: why there is no answer although there is a driver, such as `Driver/library version mismatch`.
    """

    version: str | None = None
    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None


def read() -> Driver:
    """Return what the driver says; empty where there is none."""
    try:
        import pynvml
    except ImportError:  # a check that installs nothing runs without it
        return Driver()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        code = getattr(error, "value", None)
        # A driver's package without its module is a fault where there is a GPU for it, and usual on a login node.
        is_none = code == NOT_INSTALLED or (code == NOT_LOADED and not _is_on_the_bus())
        return Driver() if is_none else Driver(problem=str(error))
    try:
        version = answer(pynvml, pynvml.nvmlSystemGetDriverVersion)
        count = answer(pynvml, pynvml.nvmlDeviceGetCount) or 0
        found = [_gpu(pynvml, index) for index in range(count)]
        return Driver(version, tuple(gpu for gpu in found if gpu is not None))
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _is_on_the_bus() -> bool:
    """Return whether Linux shows an NVIDIA GPU on the PCI bus, whatever its driver does."""

    def says(device: Path, file: str, start: str) -> bool:
        with contextlib.suppress(OSError):
            return (device / file).read_text(encoding="ascii").startswith(start)
        return False

    return any(says(each, "vendor", NVIDIA) and says(each, "class", DISPLAY) for each in PCI.glob("*"))


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """Yield pynvml, initialised, or None where the driver does not answer."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        yield None
        return
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def facts(uuid: str | None) -> dict[str, Any]:
    """Return what is set on a GPU: its limits and modes; each is None where the driver does not say."""

    def questions(nvml: Any, handle: Any) -> dict[str, Callable[[], Any]]:
        handle = _whole(nvml, handle)
        return {
            "power_limit_watts": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
            "default_power_limit_watts": lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1000,
            "max_sm_clock_hz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM) * 10**6,
            "ecc": lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0]),
            "mig": lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0]),
            "persistence": lambda: bool(nvml.nvmlDeviceGetPersistenceMode(handle)),
        }

    return _ask(uuid, questions)


def state(uuid: str | None) -> dict[str, Any]:
    """Return what can change on a GPU from moment to moment; each is None where the driver does not say."""

    def questions(nvml: Any, handle: Any) -> dict[str, Callable[[], Any]]:
        whole = _whole(nvml, handle)
        return {
            **_activity(nvml, handle),
            "memory_clock_hz": lambda: nvml.nvmlDeviceGetClockInfo(whole, nvml.NVML_CLOCK_MEM) * 10**6,
            "max_sm_clock_hz": lambda: nvml.nvmlDeviceGetMaxClockInfo(whole, nvml.NVML_CLOCK_SM) * 10**6,
            "throttle_reasons_bitmask": lambda: _throttle_reasons(nvml, whole),
            "held_back_by_power_s": lambda: _held_back_s(nvml, whole, nvml.NVML_PERF_POLICY_POWER),
            "held_back_by_heat_s": lambda: _held_back_s(nvml, whole, nvml.NVML_PERF_POLICY_THERMAL),
            "temperature_celsius": lambda: nvml.nvmlDeviceGetTemperature(whole, nvml.NVML_TEMPERATURE_GPU),
            "memory_used_bytes": lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
            "energy_joules": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000,
            "processes": lambda: sorted(p.pid for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
        }

    return _ask(uuid, questions)


def activity(uuid: str | None) -> dict[str, Any]:
    """Return `utilisation_ratio`, `power_watts` and `sm_clock_hz`; None where the driver does not say."""
    return _ask(uuid, _activity)


def energy_joules(uuid: str | None) -> float | None:
    """Return the energy that a GPU has taken since its driver was loaded; it is counted some ten times a second."""
    return _ask(uuid, lambda nvml, handle: {"joules": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000})[
        "joules"
    ]


def links(uuid: str | None) -> dict[str, int | None]:
    """Return `nvlinks` (active ones), `pcie_generation` and `pcie_lanes` (the most that the GPU can do)."""

    def questions(nvml: Any, handle: Any) -> dict[str, Callable[[], Any]]:
        def active(link: int) -> bool:
            # A link that the device does not have is refused.
            return bool(answer(nvml, lambda: nvml.nvmlDeviceGetNvLinkState(handle, link)))

        return {
            "nvlinks": lambda: sum(map(active, range(MOST_NVLINKS))),
            "pcie_generation": lambda: int(nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle)),
            "pcie_lanes": lambda: int(nvml.nvmlDeviceGetMaxPcieLinkWidth(handle)),
        }

    return _ask(uuid, questions)


def answer(nvml: Any, question: Callable[[], Any]) -> Any:
    """Return the answer to a question, or None where the driver refuses it or does not know it."""
    try:
        return question()
    except (nvml.NVMLError, AttributeError):  # an old NVML lacks a function, as pynvml an old constant
        return None


def _activity(nvml: Any, handle: Any) -> dict[str, Callable[[], Any]]:
    whole = _whole(nvml, handle)
    return {
        "utilisation_ratio": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        "power_watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        "sm_clock_hz": lambda: nvml.nvmlDeviceGetClockInfo(whole, nvml.NVML_CLOCK_SM) * 10**6,
    }


def _whole(nvml: Any, handle: Any) -> Any:
    """Return the handle of the GPU that a slice is of; that of a whole one is its own."""
    if handle is None:
        return None
    return answer(nvml, lambda: nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)) or handle


def _throttle_reasons(nvml: Any, handle: Any) -> int:
    """Return why clocks are low, one bit for each reason; drivers before 535 know the question by its old name."""
    try:
        return int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    except nvml.NVMLError_FunctionNotFound:
        return int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))


def _ask(uuid: str | None, questions: Callable[[Any, Any], Mapping[str, Callable[[], Any]]]) -> dict[str, Any]:
    with opened() as nvml:
        handle = None if nvml is None or uuid is None else _handle(nvml, uuid)
        return {key: None if handle is None else answer(nvml, ask) for key, ask in questions(nvml, handle).items()}


def _handle(nvml: Any, uuid: str) -> Any:
    """Return the handle of the GPU, or the slice of one, with a UUID as torch writes it."""
    handles = (
        answer(nvml, functools.partial(nvml.nvmlDeviceGetHandleByUUID, kind + uuid)) for kind in ("GPU-", "MIG-")
    )
    return next((handle for handle in handles if handle is not None), None)


def _gpu(nvml: Any, index: int) -> Gpu | None:
    handle = answer(nvml, lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    name = None if handle is None else answer(nvml, lambda: nvml.nvmlDeviceGetName(handle))
    return None if name is None else Gpu(str(name), answer(nvml, lambda: nvml.nvmlDeviceGetUUID(handle)))


def _held_back_s(nvml: Any, handle: Any, policy: int) -> float:
    """Return for how many seconds a GPU has lowered its clocks for one reason since its driver was loaded."""
    return nvml.nvmlDeviceGetViolationStatus(handle, policy).violationTime / 1e9
