"""What is sampled in the background, with readings that a test gives."""

import os
import threading
import time
from typing import Any

import pytest

from stepbench.measure import environment
from stepbench.measure.device_load import DeviceLoad


def test_the_mean_is_told_and_what_no_device_tells_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([0.9, 0.9] + [0.2, 0.6] * 500)  # the first ones are of the time before

    def activity(device: str, position: int) -> dict[str, Any]:
        assert (device, position) == ("cpu", 3)
        return {"utilisation_ratio": next(readings), "power_watts": None, "sm_clock_hz": None}

    monkeypatch.setattr(environment, "activity", activity)
    with DeviceLoad("cpu", position=3, interval_s=0.001) as load:
        while load.scalars()["load_samples"] < 3:
            time.sleep(0.001)
    found = load.scalars()
    assert 0.2 <= found["utilisation_ratio"] <= 0.6
    assert (found["power_watts"], found["sm_clock_hz"]) == (None, None)


def test_nothing_is_sampled_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(environment, "activity", lambda *_: asked.append(1) or dict.fromkeys(
        ("utilisation_ratio", "power_watts", "sm_clock_hz")))  # fmt: skip
    with DeviceLoad("cpu", interval_s=0.001):
        pass
    count = len(asked)
    time.sleep(0.02)
    assert len(asked) == count
    assert count >= 2


def test_a_cpu_is_as_busy_as_it_is() -> None:
    with DeviceLoad("cpu", interval_s=0.02) as load:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass
    found = load.scalars()["utilisation_ratio"]
    assert 0.5 / (os.cpu_count() or 1) < found <= 1


def test_no_sample_is_of_the_time_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil tells each thread what has been since the same thread asked, and a thread's first answer is 0."""
    asked = []

    def activity(*_: Any) -> dict[str, Any]:
        asked.append(threading.get_ident())
        return {"utilisation_ratio": float(asked.count(asked[-1]) > 1), "power_watts": None, "sm_clock_hz": None}

    monkeypatch.setattr(environment, "activity", activity)
    with DeviceLoad("cpu", interval_s=0.001) as load:
        while load.scalars()["load_samples"] < 3:
            time.sleep(0.001)
    assert load.scalars()["utilisation_ratio"] == 1
    with DeviceLoad("cpu", interval_s=60) as short:
        pass
    assert (short.scalars()["utilisation_ratio"], short.scalars()["load_samples"]) == (1, 1)


def test_a_reading_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def activity(*_: Any) -> dict[str, Any]:
        asked.append(1)
        if len(asked) > 2:
            raise OSError("the GPU is lost")
        return dict.fromkeys(("utilisation_ratio", "power_watts", "sm_clock_hz"))

    monkeypatch.setattr(environment, "activity", activity)
    with pytest.raises(OSError, match="the GPU is lost"), DeviceLoad("cuda", interval_s=0.001):
        pass
    asked.clear()
    with pytest.raises(ValueError, match="an epoch"), DeviceLoad("cuda", interval_s=0.001):
        raise ValueError("an epoch")
