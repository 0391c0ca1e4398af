"""Timing on a device that is held until all of the work has been launched.

A kernel of some microseconds is shorter than its launch, so that between two events on an idle stream one would time
the host. Here the stream first spins; meanwhile the host launches the first event, the work and the second event, and
the device then runs the work without a gap. Whether the stream was still held when the last launch had returned is
recorded: work that waits for the device itself, or has more launches than a stream takes ahead, cannot be held.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

FIRST_HOLD_S = 5e-4
MOST_HOLD_S = 0.25
TRIES = 4  # of a region whose launch outlasted the hold; each holds at least twice as long


class Stream(Protocol):
    """What is needed of a device's stream."""

    def hold(self, duration_s: float) -> None:
        """Keep the device busy for about this long, from when it has done what was launched before."""

    def record(self) -> Any:
        """Launch an event and return it."""

    def has_passed(self, event: Any) -> bool:
        """Tell whether the device has reached an event, without waiting."""

    def seconds_between(self, first: Any, last: Any) -> float:
        """Return the device's time between two events that it has passed."""

    def synchronize(self) -> None:
        """Wait for the device."""

    def now(self) -> float:
        """Return the host's time in seconds."""


@dataclass
class DeviceTimes:
    """What was timed, one value for each repeat.

    Attributes:
        device_s: the device's seconds between the two events.
        host_s: the host's seconds for launching the work.
        held: whether the launch had ended before the work began.
    """

    device_s: list[float] = field(default_factory=list)
    host_s: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)

    def samples(self, name: str) -> dict[str, list[float]]:
        """Return `<name>_s` and `<name>_host_s`."""
        return {f"{name}_s": self.device_s, f"{name}_host_s": self.host_s}

    def scalars(self, name: str) -> dict[str, float]:
        """Return `<name>_held_ratio`, the share of repeats whose launch does not count."""
        return {f"{name}_held_ratio": sum(self.held) / len(self.held)} if self.held else {}


def time_on_device(
    work: Callable[[], object], *, before: Callable[[], object], repeats: int, stream: Stream
) -> DeviceTimes:
    """Time `work` on the device, `repeats` times.

    Args:
        work: the timed function.
        before: called before each repeat and each further try, outside of the region; it may clear the L2 cache.
        repeats: number of samples.
        stream: the one that `work` launches on.
    """
    found = DeviceTimes()
    hold_s = FIRST_HOLD_S
    for _ in range(repeats):
        for attempt in range(TRIES):
            before()
            stream.hold(hold_s)
            first = stream.record()
            start = stream.now()
            work()
            host_s = stream.now() - start
            last = stream.record()
            held = not stream.has_passed(first)
            stream.synchronize()
            if held or attempt == TRIES - 1 or hold_s >= MOST_HOLD_S:
                break
            hold_s = min(MOST_HOLD_S, 2 * max(hold_s, host_s))
        found.device_s.append(stream.seconds_between(first, last))
        found.host_s.append(host_s)
        found.held.append(held)
    return found


class CudaStream:
    """The current stream of the current CUDA device."""

    def __init__(self) -> None:
        self._cycles_per_s = self._spin_rate()

    def hold(self, duration_s: float) -> None:
        """Launch a kernel that spins."""
        from stepbench import versions

        versions.spin_on_cuda(int(duration_s * self._cycles_per_s))

    def record(self) -> Any:
        """Launch an event and return it."""
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def has_passed(self, event: Any) -> bool:
        """Tell whether the device has reached an event, without waiting."""
        return bool(event.query())

    def seconds_between(self, first: Any, last: Any) -> float:
        """Return the device's time between two events that it has passed."""
        return float(first.elapsed_time(last)) / 1000

    def synchronize(self) -> None:
        """Wait for the device."""
        import torch

        torch.cuda.synchronize()

    def now(self) -> float:
        """Return `time.perf_counter()`."""
        return time.perf_counter()

    def _spin_rate(self) -> float:
        """Return how many cycles the device spins in a second; the second of two spins, for the first loads code."""
        from stepbench import versions

        cycles = 2_000_000  # a millisecond at 2 GHz
        for _ in range(2):
            first = self.record()
            versions.spin_on_cuda(cycles)
            last = self.record()
            self.synchronize()
        return cycles / max(self.seconds_between(first, last), 1e-6)
