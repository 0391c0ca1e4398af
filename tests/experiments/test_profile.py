"""What the profile experiment records, at a size that takes no time, with a fake nsys and without."""

import dataclasses
import gzip
import json
from pathlib import Path

import pytest
from tests.measure import test_nsys

from stepbench.experiments.profile.cell import Cell as Profile
from stepbench.experiments.profile.measure import measure
from stepbench.measure import fit, nsys
from stepbench.measure.measurement import Measurement, PredictedOutOfMemoryError, Setting
from stepbench.models.ranged_attention import PARTS
from stepbench.pipeline import reach
from stepbench.workloads import profiled
from stepbench.workloads.spec import StepSpec

LAYERS = 2
SETTING = Setting(
    device="cpu",
    protocol={"warmup_steps": 1, "measured_steps": 2, "seed": 0, "threads": 1},
    definition={"vocabulary": 20, "size": {"d_model": 32, "d_ff": 64, "layers": LAYERS, "heads": 2}},
)
SPEC = StepSpec.of(Profile("nano", 16, 2), SETTING)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Measurement, Path]:
    stem = tmp_path_factory.mktemp("records") / "size~2.7B,context~16"
    return measure(Profile("nano", 16, 2), dataclasses.replace(SETTING, artifacts=stem)), stem


def test_the_trace_is_kept_beside_the_record(measured: tuple[Measurement, Path]) -> None:
    record, stem = measured
    assert record.details["trace"] == f"{stem.name}.trace.json.gz"
    events = json.loads(gzip.decompress((stem.parent / record.details["trace"]).read_bytes()))["traceEvents"]
    assert {"stepbench phase: forward", "stepbench attention: softmax"} <= {event.get("name") for event in events}


def test_each_phase_has_its_operators_per_step(measured: tuple[Measurement, Path]) -> None:
    found = {(each["phase"], each["name"]): each for each in measured[0].details["operators"]}
    assert found["forward", "aten::mm"]["calls"] == 7 * LAYERS + 1
    assert found["backward", "aten::mm"]["calls"] == 2 * (7 * LAYERS + 1)
    assert found["forward", "aten::_softmax"]["calls"] == LAYERS
    assert ("optimizer", "aten::mm") not in found
    assert all(each["device_s"] == 0 for each in found.values())
    assert measured[0].details["kernels"] == []


def test_attention_is_told_apart_in_both_directions(measured: tuple[Measurement, Path]) -> None:
    found = {(each["phase"], each["name"]): each for each in measured[0].details["ranges"]}
    assert found.keys() == {(phase, part) for phase in ("forward", "backward") for part in PARTS}
    assert all(found["forward", part]["calls"] == LAYERS for part in PARTS)
    assert found["backward", "softmax"]["calls"] == LAYERS


def test_the_warm_up_is_outside_and_the_phases_are_parts_of_the_step(measured: tuple[Measurement, Path]) -> None:
    samples = measured[0].samples
    assert len(samples["step_s"]) == 2
    profiled = {key: values for key, values in samples.items() if key.startswith("profiled_")}
    assert {len(values) for values in profiled.values()} == {measured[0].protocol["profiled_steps"]}
    for step, *parts in zip(profiled.pop("profiled_step_s"), *profiled.values(), strict=True):
        assert 0 < sum(parts) <= step


def test_compiled_attention_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    record = measure(Profile("nano", 16, 2, implementation="compiled", passes="forward"), SETTING)
    assert record.details["ranges"] == []
    assert {each["phase"] for each in record.details["operators"]} == {"forward"}


def test_without_nsys_the_record_says_so(measured: tuple[Measurement, Path]) -> None:
    assert measured[0].details["nsys"] == {"reason": "nsys is not on the PATH"}


@pytest.fixture
def fake_nsys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    log = tmp_path / "nsys.log"
    test_nsys.install(tmp_path, log)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return log


def test_with_nsys_the_same_step_runs_under_it(
    fake_nsys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nsys, "missing_reason", lambda _device: None)  # as on a machine with a GPU
    stem = tmp_path / "size~2.7B,context~16"
    seen = profiled.under_nsys(SPEC, dataclasses.replace(SETTING, artifacts=stem))
    assert seen["report"] == f"{stem.name}.nsys-rep"
    assert (tmp_path / seen["report"]).exists()
    assert seen["steps"] == profiled.RECORDED_STEPS
    assert [kernel["name"] for kernel in seen["kernels"]] == ["sm90_gemm<float, 128>", "softmax_kernel"]
    command = fake_nsys.read_text().splitlines()[0]
    assert "-m stepbench.workloads.profiled " in command


@pytest.mark.usefixtures("fake_nsys")
def test_an_nsys_that_fails_costs_its_table_and_not_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nsys, "missing_reason", lambda _device: None)
    seen = profiled.under_nsys(dataclasses.replace(SPEC, vocabulary=0), SETTING)
    assert seen["reason"].startswith("nsys profile exited with status 1: ")


def test_what_is_predicted_not_to_fit_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "capacity_bytes", lambda _device: 1000)
    monkeypatch.setattr(profiled, "make", lambda *_a, **_k: pytest.fail("it was started"))
    with pytest.raises(PredictedOutOfMemoryError):
        measure(Profile("nano", 16, 2), SETTING)


@pytest.mark.parametrize("name", ["end_to_end", "warmup", "ceilings"])
def test_no_profiler_is_in_reach_of_what_is_timed(name: str) -> None:
    """A profile, a snapshot or a trace never changes a timing: they are cells of their own."""
    from stepbench.experiments import experiment as experiments

    reached = reach.source(f"{experiments.load(name).module}.measure")
    inside = ("measure.profiler", "measure.nsys", "measure.allocator_memory", "models.ranged_attention")
    assert not [module for module in reached if module.endswith(inside)]
