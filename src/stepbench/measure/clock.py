"""Clocks: the time, and waiting for the device.

A device works asynchronously: a launch returns before the work is done. So a clock has two parts, the time and the
wait (`synchronize`). The timing protocol (`stepbench.measure.timing`) uses only these two, so that it can be tested
with a clock of scripted ticks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from stepbench.measure.devices import KINDS


class Clock(Protocol):
    """A clock that returns the time and can wait for the device."""

    name: str
    is_asynchronous: bool

    def now(self) -> float:
        """Return the time in seconds since an arbitrary moment."""

    def synchronize(self) -> None:
        """Wait until the device has finished everything that was launched."""


class HostClock:
    """The host's monotonic clock (resolution about ten nanoseconds), which can wait for a device."""

    def __init__(self, synchronize: Callable[[], None], name: str, *, is_asynchronous: bool = True) -> None:
        self._synchronize = synchronize
        self.name = name
        self.is_asynchronous = is_asynchronous

    def now(self) -> float:
        """Return `time.perf_counter()`."""
        return time.perf_counter()

    def synchronize(self) -> None:
        """Wait for the device."""
        self._synchronize()


def for_device(device: str) -> HostClock:
    """Return the clock for `cuda`, `xpu`, `mps` or `cpu`.

    Raises:
        ValueError: `device` is another one.
    """
    import torch

    if device not in KINDS:
        raise ValueError(f"`device` must be one of {', '.join(KINDS)}, got {device!r}")
    if device == "cpu":
        return HostClock(lambda: None, "host clock", is_asynchronous=False)
    return HostClock(torch.accelerator.synchronize, f"host clock, {device.upper()} device synchronised")
