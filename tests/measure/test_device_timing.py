"""Times of short work on a device, against a device whose launches take longer than its work."""

from collections.abc import Callable

import pytest

from stepbench.measure import device_timing
from stepbench.measure.device_timing import DeviceTimes, time_on_device

LAUNCH_S, KERNEL_S, FLUSH_S = 2e-4, 5e-6, 1e-3


class Stream:
    """A stream of a device, which works through what is launched while the host goes on."""

    def __init__(self, *, can_hold: bool = True) -> None:
        self.host_s, self.device_s, self.held_s = 10.0, 0.0, 0.0
        self._can_hold = can_hold

    def launch(self, duration_s: float = KERNEL_S, launch_s: float = LAUNCH_S) -> None:
        self.host_s += launch_s
        self.device_s = max(self.device_s, self.host_s) + duration_s

    def hold(self, duration_s: float) -> None:
        self.held_s += duration_s
        self.launch(duration_s if self._can_hold else 0.0)

    def record(self) -> float:
        self.launch(0.0, 1e-6)
        return self.device_s

    def has_passed(self, event: float) -> bool:
        return event <= self.host_s

    def seconds_between(self, first: float, last: float) -> float:
        assert self.has_passed(last), "the device has not reached the event"
        return last - first

    def synchronize(self) -> None:
        self.host_s = max(self.host_s, self.device_s)

    def now(self) -> float:
        return self.host_s


def time(stream: Stream, kernels: int, *, before: Callable[[], None] = lambda: None) -> DeviceTimes:
    return time_on_device(lambda: [stream.launch() for _ in range(kernels)], before=before, repeats=3, stream=stream)


@pytest.mark.parametrize("kernels", [1, 2, 7, 100])
def test_work_that_is_shorter_than_its_launch_is_timed_without_it(kernels: int) -> None:
    stream = Stream()
    found = time(stream, kernels, before=lambda: stream.launch(FLUSH_S))
    assert found.device_s == pytest.approx([kernels * KERNEL_S] * 3)
    assert found.host_s == pytest.approx([kernels * LAUNCH_S] * 3)
    assert found.scalars("forward") == {"forward_held_ratio": 1.0}
    assert found.samples("forward") == {"forward_s": found.device_s, "forward_host_s": found.host_s}


def test_without_a_hold_it_would_be_the_launch_and_is_told() -> None:
    found = time(Stream(can_hold=False), 7)
    assert found.device_s == pytest.approx([7 * LAUNCH_S] * 3, rel=0.2)
    assert found.scalars("forward") == {"forward_held_ratio": 0.0}


def test_a_hold_that_was_too_short_is_made_longer_once_and_for_all() -> None:
    stream = Stream()
    tries = []
    time(stream, 20, before=lambda: tries.append(1))
    assert len(tries) == 4  # the first repeat tries twice
    assert stream.held_s < 4 * 2 * 20 * LAUNCH_S * 2


def test_work_that_cannot_be_held_is_not_tried_for_ever() -> None:
    stream = Stream(can_hold=False)
    tries = []
    time(stream, 7, before=lambda: tries.append(1))
    assert len(tries) <= 3 * device_timing.TRIES


def test_work_that_is_longer_than_its_launch_is_timed_as_it_is() -> None:
    stream = Stream()
    found = time_on_device(lambda: stream.launch(0.5), before=lambda: None, repeats=2, stream=stream)
    assert found.device_s == pytest.approx([0.5] * 2)
