"""What is sampled of a cell's own GPUs while it runs."""

import contextlib
import time
from typing import Any

import pytest

from stepbench.measure import nvml
from stepbench.measure.device_watch import DeviceWatch
from stepbench.measure.devices import Device

KEYS = [
    "utilisation_ratio",
    "sm_clock_hz",
    "power_watts",
    "throttle_reasons_bitmask",
    "temperature_celsius",
    "energy_joules",
]


def watched(monkeypatch: pytest.MonkeyPatch, readings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    asked: list[str | None] = []

    def state(uuid: str | None) -> dict[str, Any]:
        asked.append(uuid)
        return {**dict.fromkeys(KEYS), **readings[min(asked.count(uuid), len(readings)) - 1]}

    monkeypatch.setattr(nvml, "opened", contextlib.nullcontext)
    monkeypatch.setattr(nvml, "state", state)
    with DeviceWatch([Device("NVIDIA H200", "second")], interval_s=0.001) as watch:
        while len(asked) < len(readings):
            time.sleep(0.001)
    assert set(asked) == {"second"}
    return watch.found()


def test_throttling_is_seen_where_the_gpu_was_busy_and_rest_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = {"utilisation_ratio": 0.9, "power_watts": 400.0, "sm_clock_hz": 1e9, "throttle_reasons_bitmask": 0x4}
    (found,) = watched(
        monkeypatch,
        [
            {"utilisation_ratio": 0.0, "throttle_reasons_bitmask": 0x1, "energy_joules": 10.0, "power_watts": 70.0},
            {**busy, "temperature_celsius": 80, "energy_joules": 300.0},
            {**busy, "throttle_reasons_bitmask": 0x41, "power_watts": 600.0, "energy_joules": 900.0},
            {"utilisation_ratio": 0.0, "throttle_reasons_bitmask": 0x1, "energy_joules": 910.0},
        ],
    )
    assert found["busy_samples"] == 2
    assert found["samples"] >= 4
    assert (found["throttle_reasons_bitmask"], found["power_watts"], found["sm_clock_hz"]) == (0x44, 500.0, 1e9)
    assert (found["temperature_celsius"], found["energy_joules"]) == (80, 900.0)


def test_what_the_driver_does_not_say_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = watched(monkeypatch, [{}, {}])
    assert {value for key, value in found.items() if "samples" not in key} == {None}


def test_a_cpu_is_not_watched() -> None:
    with DeviceWatch([]) as watch:
        pass
    assert watch.found() == []
