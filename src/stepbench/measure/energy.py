"""The energy of a piece of work, by the counters of the device: NVML's of a GPU, RAPL's of a CPU.

A GPU's counter moves some ten times a second, so that one step is below what it can tell. Work is repeated for a second
and more, from one move of the counter to another, with the device busy before the first and until the last: no idle
time counts, and what is left is an error of one repeat. A CPU's counter is of its packages with all that runs on them;
since 2020 Linux lets only root read it.

Ranks work in step, each with its own device's counter: the region of each is between moves of its own, and none stops
before all are done. The energy of a step is the sum over the devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from stepbench.measure import environment, nvml
from stepbench.measure.clock import Clock
from stepbench.measure.devices import KINDS

POWERCAP = Path("/sys/class/powercap")
PACKAGES = "intel-rapl:[0-9]*"  # AMD's have the same name
STILL_S = 2.0  # a counter that has not moved for so long is none


class Counter(Protocol):
    """A counter of energy.

    Attributes:
        name: of the instrument, as a record states it.
        least_s: how long a region must be for the counter to tell it well.
    """

    name: str
    least_s: float

    def joules(self) -> float | None:
        """Return the energy since an arbitrary moment, or None where it is not told."""


class GpuCounter:
    """The counter of one GPU."""

    name = "NVML's counter of the GPU"
    least_s = 1.0

    def __init__(self, uuid: str | None) -> None:
        self._uuid = uuid

    def joules(self) -> float | None:
        """Return the energy since the driver was loaded."""
        return nvml.energy_joules(self._uuid)


class CpuCounter:
    """The sum of the packages' counters, each of which begins anew at a number of its own.

    Args:
        packages: folders with `energy_uj` and `max_energy_range_uj`.
    """

    name = "RAPL's counters of the CPU's packages"
    least_s = 0.3

    def __init__(self, packages: Sequence[Path]) -> None:
        self._packages = packages
        self._last: list[int] | None = None
        self._total_uj = 0

    def joules(self) -> float | None:
        """Return the energy since the first call."""
        try:
            found = [int((package / "energy_uj").read_text(encoding="ascii")) for package in self._packages]
            ranges = [int((package / "max_energy_range_uj").read_text(encoding="ascii")) for package in self._packages]
        except (OSError, ValueError):
            return None
        if self._last is not None:
            steps = zip(found, self._last, ranges, strict=True)
            self._total_uj += sum(now - was if now >= was else now - was + most for now, was, most in steps)
        self._last = found
        return self._total_uj / 1e6


def counter_of(device: str, position: int = 0) -> Counter | None:
    """Return a device's counter, or None where it tells nothing.

    Args:
        device: its kind.
        position: among several GPUs; a CPU has one counter for all that run on it.
    """
    found: Counter | None = None
    if KINDS[device].is_gpu:
        uuids = [each.uuid for each in environment.used(device)][position : position + 1]
        found = next((GpuCounter(uuid) for uuid in uuids if uuid is not None), None)
    elif device == "cpu" and (packages := _packages()):
        found = CpuCounter(packages)
    return None if found is None or found.joules() is None else found


def of_steps(work: Callable[[], object], *, device: str, clock: Clock) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the energy of one call of `work`, which is warm, and how it was found; both empty where nobody counts it.

    Returns:
        Scalars `step_energy_joules`, `energy_steps` and `energy_region_s`; protocol `energy_counter`.
    """
    counter = counter_of(device)
    with nvml.opened():  # or NVML would be set up again for each reading, and the device would wait meanwhile
        found = None if counter is None else per_call(work, counter=counter, clock=clock)
    if counter is None or found is None:
        return {}, {}
    joules, calls, region_s = found
    scalars = {"step_energy_joules": joules, "energy_steps": calls, "energy_region_s": region_s}
    return scalars, {"energy_counter": counter.name}


def per_call(
    work: Callable[[], object],
    *,
    counter: Counter | None,
    clock: Clock,
    agreed: Callable[[bool], bool] = lambda is_over: is_over,
) -> tuple[float, int, float] | None:
    """Return joules of one call, the number of calls and the seconds that this rests on; None if the counter stands.

    Args:
        work: called many times, with a synchronisation after each.
        counter: of the device; None for a rank that only works with the others.
        clock: its clock.
        agreed: called before each call with whether this is over here; returns whether it is over everywhere. What one
            rank works, all do.
    """
    region = None if counter is None else _Region(counter, clock)
    while not agreed(region is None or region.is_over):
        work()
        clock.synchronize()
        if region is not None:
            region.look()
    return None if region is None else region.per_call()


class _Region:
    """The calls between two moves of a counter, at least `least_s` apart."""

    def __init__(self, counter: Counter, clock: Clock) -> None:
        self._counter, self._clock = counter, clock
        self._calls, self._was, self._since = 0, counter.joules(), clock.now()
        self._first: tuple[int, float, float] | None = None
        self._last: tuple[int, float, float] | None = None
        self.is_over = self._was is None

    def look(self) -> None:
        """Read the counter after a call."""
        if self.is_over:
            return
        self._calls += 1
        joules, now = self._counter.joules(), self._clock.now()
        least_s = 0.0 if self._first is None else self._counter.least_s
        if joules is None:
            self.is_over = True
        elif now - self._since < least_s:
            self._was = joules
        elif joules != self._was:
            here = (self._calls, joules, now)
            self._was, self._since = joules, now
            self._first, self._last = (here, None) if self._first is None else (self._first, here)
            self.is_over = self._last is not None
        elif now - self._since > least_s + STILL_S:
            self.is_over = True

    def per_call(self) -> tuple[float, int, float] | None:
        """Return joules of one call, the calls and the seconds, or None if there were not two moves."""
        if self._first is None or self._last is None:
            return None
        (begun, before, start), (ended, after, end) = self._first, self._last
        return ((after - before) / (ended - begun), ended - begun, end - start) if after > before else None


def _packages() -> list[Path]:
    """Return the folders of the CPU's packages: not the parts of one, and not the platform, which counts them again."""
    found = []
    for folder in sorted(POWERCAP.glob(PACKAGES)):
        try:
            name = (folder / "name").read_text(encoding="ascii")
        except OSError:
            continue
        if folder.name.count(":") == 1 and name.startswith("package"):
            found.append(folder)
    return found
