"""What others took of the cores, with the kernel's counters replaced, and once with a real process."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from stepbench.measure import host_load
from stepbench.measure.host_load import Reading, between

BURN = "import time\nwhile time.process_time() < 0.4: pass"


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Have the kernel say what a test writes here: seconds of three cores, two of which this process may use."""
    said: dict[str, Any] = {"busy": [10.0, 20.0, 99.0], "steal": [1.0, 0.0, 50.0], "own": 3.0, "children": [2.0, 4.0]}

    def times(percpu: bool) -> list[SimpleNamespace]:
        assert percpu
        zero = {"nice": 0.0, "system": 0.0, "irq": 0.0, "softirq": 0.0}
        pairs = zip(said["busy"], said["steal"], strict=True)
        return [SimpleNamespace(user=busy, steal=steal, **zero) for busy, steal in pairs]

    def process(seconds: float) -> SimpleNamespace:
        return SimpleNamespace(cpu_times=lambda: (seconds, 0.0, 0.0, 0.0))

    def this() -> SimpleNamespace:
        found = process(said["own"])
        found.children = lambda recursive: [process(seconds) for seconds in said["children"]]
        return found

    monkeypatch.setattr(psutil, "cpu_times", times)
    monkeypatch.setattr(psutil, "Process", this)
    monkeypatch.setattr(host_load.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return said


def test_what_others_took_of_the_cores_is_recorded(counters: dict[str, Any]) -> None:
    first = host_load.read()
    counters |= {"busy": [18.0, 24.0, 199.0], "steal": [1.5, 0.0, 90.0], "own": 5.0, "children": [2.0, 10.0]}
    found = between(first, host_load.read())
    assert found is not None
    assert found["wall_s"] >= 0
    del found["wall_s"]
    # Both cores were busy for 12 s, 8 s of it for this process and its children; the third core is not ours to use.
    taken = {"own_cpu_s": 8.0, "others_cpu_s": 4.0, "stolen_cpu_s": 0.5, "stopped_s": 0.0}
    assert found == {"cores": 2, **taken}


def test_what_is_not_counted_is_null(counters: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = host_load.read()
    counters["own"] += 10.0  # and the cores are said to have done nothing, as in some sandboxes
    assert between(first, host_load.read()) is None
    assert between(None, first) is None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert host_load.read() is None


def test_roundings_of_the_counters_give_no_negative_time() -> None:
    first, last = Reading(0.0, 2, 10.0, 1.0, 5.0), Reading(1.0, 2, 11.0, 0.99, 6.02)
    found = between(first, last)
    assert found is not None
    assert (found["others_cpu_s"], found["stolen_cpu_s"]) == (0.0, 0.0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what each core has done")
def test_a_child_that_has_ended_is_no_other() -> None:
    first = host_load.read()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    last = host_load.read()
    assert first is not None
    assert last is not None
    assert last.own_s - first.own_s >= 0.35  # the kernel counts in hundredths of a second
    assert last.busy_s > first.busy_s
