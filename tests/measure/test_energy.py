"""The energy of a step by counters that move now and then, begin anew, stand, or may not be read."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stepbench.measure import energy, environment, nvml
from stepbench.measure.devices import Device

STEP_S, WATTS = 0.03, 500.0


class Running:
    """A device whose time passes only while it works; its counter moves every `every_s`."""

    name, is_asynchronous = "a clock", True

    def __init__(self, every_s: float, least_s: float = 1.0) -> None:
        self.now_s, self.every_s, self.least_s, self.calls, self.step_s = 0.0, every_s, least_s, 0, STEP_S

    def now(self) -> float:
        return self.now_s

    def synchronize(self) -> None:
        """It has."""

    def work(self) -> None:
        self.calls += 1
        self.now_s += self.step_s

    def joules(self) -> float | None:
        return 1e6 + WATTS * (self.now_s // self.every_s) * self.every_s


@pytest.mark.parametrize("every_s", [0.001, 0.1])
def test_a_steps_energy_is_told_to_one_step_in_the_region(every_s: float) -> None:
    device = Running(every_s)
    found = energy.per_call(device.work, counter=device, clock=device)
    assert found is not None
    joules, calls, region_s = found
    assert region_s >= 1.0
    assert calls == round(region_s / STEP_S)
    assert joules == pytest.approx(WATTS * STEP_S, rel=1.5 / calls)
    assert device.calls < 1.3 / STEP_S


def test_a_long_step_is_repeated_once() -> None:
    device = Running(0.1, least_s=0.01)
    found = energy.per_call(device.work, counter=device, clock=device)
    assert found is not None
    assert device.calls < 12


def test_a_step_that_takes_longer_than_a_counter_may_stand_is_told() -> None:
    device = Running(0.1)
    device.step_s = 5.0
    found = energy.per_call(device.work, counter=device, clock=device)
    assert found == (pytest.approx(WATTS * 5.0, rel=0.05), 1, pytest.approx(5.0))


def test_ranks_work_until_all_are_done_and_each_counts_its_own() -> None:
    """One counter moves often, one seldom, one stands, and one rank has none; the devices wait for one another."""
    often, seldom, standing = Running(0.001), Running(0.7), Running(0.1)
    standing.joules = lambda: 7.0  # type: ignore[method-assign]
    idle = Running(0.1)
    devices = [often, seldom, standing, idle]
    over = dict.fromkeys(range(4), False)
    meeting = threading.Barrier(4)

    def rank(number: int) -> tuple[float, int, float] | None:
        def agreed(is_over: bool) -> bool:
            over[number] = is_over
            meeting.wait(10.0)
            found = all(over.values())
            meeting.wait(10.0)
            return found

        device = devices[number]
        return energy.per_call(device.work, counter=None if device is idle else device, clock=device, agreed=agreed)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(rank, range(4)))
    assert found[2:] == [None, None]
    assert len({device.calls for device in devices}) == 1
    for told in found[:2]:
        assert told is not None
        assert told[0] == pytest.approx(WATTS * STEP_S, rel=0.05)


@pytest.mark.parametrize("joules", [lambda: 7.0, lambda: None])
def test_a_counter_that_stands_or_does_not_answer_tells_nothing(joules: Callable[[], float | None]) -> None:
    device = Running(0.1)
    device.joules = joules  # type: ignore[method-assign]
    assert energy.per_call(device.work, counter=device, clock=device) is None
    assert device.calls <= 2 * (energy.STILL_S + 1) / STEP_S


def package(folder: Path, name: str, microjoules: int, most: int = 1000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        (folder / file).write_text(f"{content}\n")
    return folder


def test_a_cpus_counter_is_the_sum_of_its_packages_and_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    first, second = (package(tmp_path / f"intel-rapl:{n}", f"package-{n}", 900) for n in (0, 1))
    package(tmp_path / "intel-rapl:0:0", "core", 5)
    package(tmp_path / "intel-rapl:2", "psys", 5)
    counter = energy.counter_of("cpu")
    assert counter is not None
    before = counter.joules()
    package(first, "package-0", 950)
    package(second, "package-1", 20)  # over its range of 1000
    after = counter.joules()
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx((50 + 120) * 1e-6)
    (first / "energy_uj").unlink()
    assert counter.joules() is None


def test_counters_that_may_not_be_read_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert energy.counter_of("cpu") is None
    (package(tmp_path / "intel-rapl:0", "package-0", 1) / "energy_uj").write_text("no number")
    assert energy.counter_of("cpu") is None
    assert energy.of_steps(lambda: pytest.fail("nobody counts"), device="cpu", clock=Running(0.1)) == ({}, {})


def test_a_gpus_counter_is_found_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Running(0.1)
    monkeypatch.setattr(environment, "used", lambda _: (Device("a GPU", uuid="abc"), Device("another", uuid="def")))
    monkeypatch.setattr(nvml, "energy_joules", lambda uuid: device.joules() if uuid == "abc" else None)
    scalars, protocol = energy.of_steps(device.work, device="cuda", clock=device)
    assert scalars["step_energy_joules"] == pytest.approx(WATTS * STEP_S, rel=0.05)
    assert protocol == {"energy_counter": "NVML's counter of the GPU"}
    monkeypatch.setattr(nvml, "energy_joules", lambda _: None)
    assert energy.counter_of("cuda") is None
