"""Other load, another process on the device and throttling are recorded, and marked where numbers are shown."""

from __future__ import annotations

from typing import Any

import pytest
from tests.process.test_run import OK, Unstarted, supervised
from tests.reporting import synthetic
from tests.reporting.conftest import markdown, results

from stepbench.experiments import experiment as experiments
from stepbench.measure import environment
from stepbench.pipeline.records import Record
from stepbench.pipeline.state import States
from stepbench.process import run
from stepbench.reporting import conditions, general_findings
from stepbench.reporting.marks import Mark, quality

GPU = {
    "sm_clock_hz": 1.9e9,
    "throttle_reasons_bitmask": 0,
    "held_back_by_power_s": 1.0,
    "held_back_by_heat_s": 1.0,
    "processes": [],
}
LOAD = {"wall_s": 10.0, "cores": 2, "own_cpu_s": 18.0, "others_cpu_s": 0.4, "stolen_cpu_s": 0.1}


def told(load: Any = None, *, before: Any = None, after: Any = None, device: str = "cpu") -> list[str]:
    """Return the marks of one record of 10 s with this load, and with these changes to a GPU's or a CPU's readings."""
    readings = {}
    for when, change in (("before", before), ("after", after)):
        readings[when] = change or {} if device == "cpu" else {"gpus": [{**GPU, **(change or {})}]}
    found = {**synthetic.FACTS, **readings, "device": device, "during": load}
    return [str(mark) for mark in conditions.find([Record("x", {}, "ok", {}, "", 10.0, environment=found)])]


def test_an_ordinary_idle_machine_gives_no_mark() -> None:
    assert told(LOAD) == []
    assert told(None) == []
    assert told(LOAD, device="cuda") == []
    # A cell of 50 ms: what the kernel's counters round away is no load.
    assert told({"wall_s": 0.05, "cores": 2, "own_cpu_s": 0.08, "others_cpu_s": 0.03, "stolen_cpu_s": 0.0}) == []


def test_other_load_is_marked() -> None:
    assert told({**LOAD, "others_cpu_s": 8.0}) == ["disturbed (40 % of the CPU used by other processes)"]
    stolen = "disturbed (15 % CPU steal)"
    assert told({**LOAD, "stolen_cpu_s": 3.0}) == [stolen]


def test_a_container_that_is_stopped_by_its_quota_of_cores_is_marked() -> None:
    assert told({**LOAD, "stopped_s": 4.5}) == ["throttled (by a quota of cores for 45 % of the time)"]
    assert told({**LOAD, "stopped_s": 0.05}) == []


def test_a_gpus_host_may_do_other_things_as_long_as_it_can_launch() -> None:
    assert told({**LOAD, "others_cpu_s": 8.0}, device="cuda") == []
    assert told({**LOAD, "others_cpu_s": 11.0}, device="cuda") == [
        "disturbed (55 % of the CPU used by other processes)"
    ]


def test_another_process_on_the_device_is_marked() -> None:
    assert told(before={"processes": [41]}, device="cuda") == ["disturbed (1 other process on the device)"]
    both = told(before={"processes": [41]}, after={"processes": [41, 42]}, device="cuda")
    assert both == ["disturbed (2 other processes on the device)"]


@pytest.mark.parametrize(
    ("after", "detail"),
    [
        ({"throttle_reasons_bitmask": 0x40}, "by heat"),
        ({"throttle_reasons_bitmask": 0x4 | 0x80}, "by its power limit, by the power supply's brake"),
        ({"throttle_reasons_bitmask": 0x4, "held_back_by_power_s": 3.0}, "by its power limit for 20 % of the time"),
        ({"held_back_by_heat_s": 1.5}, "by heat for 5.0 % of the time"),
        ({"sm_clock_hz": 1.5e9}, "from 1900 to 1500 MHz"),
    ],
)
def test_a_throttled_gpu_is_marked(after: dict[str, Any], detail: str) -> None:
    assert told(after=after, device="cuda") == [f"throttled ({detail})"]


@pytest.mark.parametrize(
    "after",
    [
        {"throttle_reasons_bitmask": 0x1, "sm_clock_hz": 3e8},
        {"throttle_reasons_bitmask": 0x2},
        {"throttle_reasons_bitmask": None, "sm_clock_hz": 3e8, "held_back_by_heat_s": None},
        {"held_back_by_power_s": 1.05},
    ],
    ids=["idle", "a person's setting", "unknown", "next to nothing"],
)
def test_an_idle_gpu_is_not_throttled(after: dict[str, Any]) -> None:
    assert told(after=after, device="cuda") == []


def test_a_cpu_that_counts_its_throttling_is_marked() -> None:
    assert told(before={"cpu_throttle_count": 7}, after={"cpu_throttle_count": 9}) == ["throttled (the CPU by heat)"]
    assert told(before={"cpu_throttle_count": 7}, after={"cpu_throttle_count": 7}) == []
    assert told(before={"cpu_throttle_count": None}, after={"cpu_throttle_count": 9}) == []


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_machine_on_its_battery_is_marked(device: str) -> None:
    def told_of(before: bool | None, after: bool | None) -> list[Mark]:
        readings = {"before": {"on_battery": before}, "after": {"on_battery": after}}
        return list(conditions.find([Record("x", {}, "ok", {}, "", 10.0, environment={"device": device, **readings})]))

    assert told_of(False, False) == told_of(None, None) == told_of(None, False) == []
    assert [str(mark) for mark in told_of(True, True)] == ["on battery (throughout)"]
    assert [str(mark) for mark in told_of(False, True)] == ["on battery (for a part of the time)"]
    assert quality(told_of(True, True)) == "C"


def paged(samples: dict[str, Any], **scalars: Any) -> list[str]:
    record = Record("x", {}, "ok", {}, "", 10.0, samples=samples, scalars=scalars)
    return [str(mark) for mark in conditions.find([record])]


def test_system_time_for_new_pages_is_marked_above_five_percent() -> None:
    step = {"step_s": [0.02] * 4, "step_page_faults": [5000] * 4}
    assert paged({**step, "step_system_s": [0.008, 0.0, 0.004, 0.004]}) == ["paging (step 20 %)"]
    assert paged({**step, "step_system_s": [0.0009] * 4}) == []
    both = {"forward_s": [0.01], "forward_page_faults": [2500], "forward_system_s": [0.004]}
    told = paged({**step, **both, "step_system_s": [0.002] * 4})
    assert told == ["paging (step 10 %, forward 40 %)"]


def test_system_time_without_new_pages_is_no_paging() -> None:
    """Gloo's sockets take system time too."""
    assert paged({"call_s": [0.01] * 4, "call_page_faults": [3] * 4, "call_system_s": [0.004] * 4}) == []


def test_paging_of_ranks_is_that_of_all_together() -> None:
    ranks = {"step_s": [[0.1, 0.1], [0.1, 0.1]], "step_page_faults": [[0, 0], [12_000, 12_000]]}
    assert paged({**ranks, "step_system_s": [[0.0, 0.0], [0.02, 0.02]]}) == ["paging (step 10 %)"]


def test_records_without_counters_and_regions_without_samples_are_not_marked() -> None:
    assert paged({"step_s": [0.1]}) == []
    assert paged({"step_s": [0.0], "step_page_faults": [9], "step_system_s": [0.1]}) == []
    assert paged({"step_s": [], "step_page_faults": [], "step_system_s": []}) == []


def test_what_cudas_allocator_asked_of_the_driver_is_marked() -> None:
    assert paged({}, allocator_retries=0, device_allocations=0) == []
    assert paged({}, allocator_retries=1, device_allocations=12) == ["paging (1 allocator retry, 12 cudaMalloc calls)"]
    assert paged({}, allocator_retries=None, device_allocations="many") == []


def test_paging_is_explained_where_it_is_shown(tmp_path) -> None:
    bench = synthetic.bench(tmp_path, warmup=[{"size": ["nano"], "warmup": [1]}])
    (cell,) = bench.grid("warmup")
    fields = synthetic.decoder_step(bench, cell, synthetic.np.random.default_rng(0), 0.01)
    seconds = fields["samples"]["step_s"]
    paging = {"step_page_faults": [10**6] * len(seconds), "step_system_s": [0.4 * value for value in seconds]}
    synthetic.write(bench, "warmup", cell, **{**fields, "samples": {**fields["samples"], **paging}})
    table = experiments.load("warmup").tabulate(results(bench, "warmup"))["warmup"]
    assert "paging (step 40 %)" in markdown(table)
    assert "paging: the operating system's work on new pages of memory took more than 5 %" in markdown(table)
    assert {row["quality"] for row in table.rows} == {"B"}


def test_a_reading_that_is_none_is_unknown_and_no_accident() -> None:
    """A bundle may hold anything with a checksum that fits."""
    assert told("much") == []
    assert told({"wall_s": "long", "cores": [2], "others_cpu_s": {}}) == []
    record = Record("x", {}, "ok", {}, "", 0.0, environment={"before": 3, "after": {"gpus": [7, None]}, "during": []})
    assert conditions.find([record]) == ()


def test_fake_readings_become_marks_in_table_and_text(tmp_path, monkeypatch) -> None:
    """From the machine's own voices through the record to what is read."""
    bench = synthetic.bench(tmp_path, warmup=[{"size": ["nano"], "warmup": [0, 1]}])
    monkeypatch.setattr(run, "Attempt", Unstarted)
    readings = iter([{"gpus": [GPU]}, {"gpus": [{**GPU, "throttle_reasons_bitmask": 0x20, "processes": [9]}]}] * 2)
    monkeypatch.setattr(environment, "state", lambda *_: next(readings))
    loads = iter([{**LOAD, "others_cpu_s": 9.0}, LOAD])
    for cell in bench.grid("warmup"):
        fields = synthetic.decoder_step(bench, cell, synthetic.np.random.default_rng(0), 0.01)
        supervised(monkeypatch, {**OK, **fields, "load": next(loads)})
        found = run.measure_cell(States(bench), cell)
        assert found.environment["during"]["wall_s"] == 10.0
        assert found.environment["after"]["gpus"][0]["processes"] == [9]
    shown = results(bench, "warmup")
    table = experiments.load("warmup").tabulate(shown)["warmup"]
    text = markdown(table)
    assert "throttled (by heat)" in text
    assert "disturbed (1 other process on the device, 45 % of the CPU used by other processes)" in text
    assert "throttled: the device lowered its clocks because of heat or power" in text
    assert {row["quality"] for row in table.rows} == {"C"}
    (finding,) = general_findings.marked(shown, [table])
    sentence = finding.text
    assert "2 were throttled" in sentence
    assert "2 were disturbed by other load" in sentence


def test_a_region_that_the_host_could_not_launch_ahead_is_launch_bound() -> None:
    def told(held_ratio: float | None, host_s: float) -> list[str]:
        scalars = {} if held_ratio is None else {"forward_held_ratio": held_ratio}
        given = {"forward_s": [1e-4, 1e-4], "forward_host_s": [host_s, host_s]}
        found = conditions.find([Record("x", {}, "ok", {}, "", 10.0, samples=given, scalars=scalars)])
        return [str(mark) for mark in found if mark.kind == "launch bound"]

    assert told(0.5, 1e-4) == told(None, 1e-4) == ["launch bound (forward 100 %)"]
    assert told(1.0, 5e-4) == []  # held: the launch was over before the work began
    assert told(None, 5e-5) == []


def test_a_gpu_that_was_throttled_while_it_was_busy_is_marked() -> None:
    def told_of(*gpus: dict[str, Any]) -> list[str]:
        found = {"device": "cuda", "gpus_during": list(gpus)}
        return [str(mark) for mark in conditions.find([Record("x", {}, "ok", {}, "", 10.0, environment=found)])]

    assert told_of({"throttle_reasons_bitmask": 0x4}, {"throttle_reasons_bitmask": 0x40}) == [
        "throttled (by its power limit, by heat)"
    ]
    assert told_of({"throttle_reasons_bitmask": 0}, {"throttle_reasons_bitmask": None}) == []


@pytest.mark.parametrize(("busy_samples", "expected"), [(0, ["throttled (by heat)"]), (7, [])])
def test_what_a_gpu_says_at_rest_is_asked_only_where_it_was_not_seen_at_work(
    busy_samples: int, expected: list[str]
) -> None:
    found = {
        "device": "cuda",
        "before": {"gpus": [{"throttle_reasons_bitmask": 0x40, "sm_clock_hz": 1.9e9}]},
        "after": {"gpus": [{"throttle_reasons_bitmask": 0x40, "sm_clock_hz": 1.9e9 if busy_samples == 0 else 3e8}]},
        "gpus_during": [{"busy_samples": busy_samples, "throttle_reasons_bitmask": 0}],
    }
    assert [str(mark) for mark in conditions.find([Record("x", {}, "ok", {}, "", 10.0, environment=found)])] == expected
