"""Clocks: what "now" means, and what has to be waited for before it means anything.

A device works behind the host's back: a launch returns before the work is done. A clock therefore has two parts, the
time and the wait (`synchronize`), and the timing protocol (`stepbench.measure.timing`) is written against these two
alone, so that it can be tested with a clock of scripted ticks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol


class Clock(Protocol):
    """A clock that can be asked for the time, and told to wait for the device."""

    name: str

    def now(self) -> float:
        """Return the time in seconds from an arbitrary zero."""

    def synchronize(self) -> None:
        """Return when the device has done all that was launched."""


class HostClock:
    """The host's monotonic clock (a resolution of some ten nanoseconds), with a device to wait for."""

    def __init__(self, synchronize: Callable[[], None], name: str) -> None:
        self._synchronize = synchronize
        self.name = name

    def now(self) -> float:
        """Return `time.perf_counter()`."""
        return time.perf_counter()

    def synchronize(self) -> None:
        """Wait for the device."""
        self._synchronize()


class FakeClock:
    """A clock of scripted ticks, for tests of the protocol; it keeps the order in which it was called.

    Args:
        ticks: what `now` returns, one after the other.
    """

    name = "fake"

    def __init__(self, ticks: Iterable[float]) -> None:
        self._ticks = iter(ticks)
        self.calls: list[str] = []

    def now(self) -> float:
        """Return the next tick."""
        self.calls.append("now")
        return next(self._ticks)

    def synchronize(self) -> None:
        """Note the call."""
        self.calls.append("synchronize")


def for_device(device: str) -> HostClock:
    """Return the clock for `cuda`, `mps` or `cpu`.

    Raises:
        ValueError: another device.
    """
    import torch

    if device == "cuda":
        return HostClock(torch.cuda.synchronize, "host clock, CUDA device synchronised")
    if device == "mps":
        return HostClock(torch.mps.synchronize, "host clock, MPS device synchronised")
    if device == "cpu":
        return HostClock(lambda: None, "host clock")
    raise ValueError(f"`device` must be one of cuda, mps, cpu, got {device!r}")
