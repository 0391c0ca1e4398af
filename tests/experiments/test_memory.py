"""What is predicted against what is measured, against published figures, and against what the device has."""

import dataclasses
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.reporting import synthetic

from stepbench.experiments.memory.cell import Cell as Memory
from stepbench.experiments.memory.measure import measure
from stepbench.measure import allocator_memory, fit, predicted_memory
from stepbench.measure.measurement import PredictedOutOfMemoryError, Setting, UnsupportedError
from stepbench.models import costs
from stepbench.models.sizes import ModelSize
from stepbench.pipeline import config
from stepbench.pipeline.state import States
from stepbench.process import attempt
from stepbench.workloads import predicted, step
from stepbench.workloads.spec import StepSpec
from stepbench.workloads.step import Step

SIZES = config.read(Path(__file__).parents[2] / "config.yaml")["sizes"]
VOCABULARY = 10_000
MIB = 2**20


def setting(size: str, **more: Any) -> Setting:
    definition = {"vocabulary": VOCABULARY, "size": SIZES[size]}
    return Setting(device="cpu", protocol={"seed": 0, "threads": 1}, definition=definition, **more)


@pytest.fixture(autouse=True)
def _default_precision() -> Any:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


# -- predicted against measured ----------------------------------------------------------------------------------------

SLOW = [("nano", "fp16"), *((size, precision) for size in ("micro", "small") for precision in ("bf16", "fp16"))]
SHAPES = [("nano", 32, 2), ("micro", 16, 1), ("small", 2, 1)]  # a CPU without 16-bit units takes long for more


@pytest.mark.parametrize(
    ("size", "context", "batch", "precision"),
    [
        pytest.param(
            *shape,
            precision,
            marks=[pytest.mark.slow] if (shape[0], precision) in SLOW else [],
            id=f"{precision}-{shape[0]}",
        )
        for precision in ("fp32", "bf16", "fp16")
        for shape in SHAPES
    ],
)
def test_a_training_steps_peak_is_predicted_within_five_percent(
    size: str, context: int, batch: int, precision: str
) -> None:
    cell = Memory("measured", size, context, batch, precision)  # type: ignore[arg-type]
    scalars = measure(cell, setting(size)).scalars
    assert scalars["predicted_peak_bytes"] == pytest.approx(scalars["peak_memory_bytes"], rel=0.05)
    if size == "small":
        return
    alone = measure(dataclasses.replace(cell, source="predicted"), setting(size)).scalars
    assert alone["peak_memory_bytes"] == scalars["predicted_peak_bytes"]
    for phase in ("forward", "backward", "optimizer"):
        for category in ("parameters", "gradients", "optimizer_state", "activations", "temporary"):
            key = f"{phase}_peak_{category}_bytes"
            assert alone[key] == pytest.approx(scalars[key], rel=0.05, abs=0.001 * scalars["peak_memory_bytes"]), key


@pytest.mark.parametrize(
    "more",
    [
        {"passes": "forward"},
        {"passes": "forward_backward"},
        {"optimizer": "adamw_loop"},
        {"optimizer": "adamw_fused"},
        {"optimizer": "sgd"},
        {"precision": "bf16", "parameter_dtype": "bf16"},
        {"attention": "sdpa", "groups": "2-1"},
        {"attention": "tiled", "groups": "1"},
    ],
    ids=lambda more: ",".join(more.values()),
)
def test_every_kind_of_step_is_predicted(more: dict[str, Any]) -> None:
    scalars = measure(Memory("measured", "nano", 32, 1, **more), setting("nano")).scalars
    assert scalars["predicted_peak_bytes"] == pytest.approx(scalars["peak_memory_bytes"], rel=0.05)
    width = 2 if "parameter_dtype" in more else 4
    parameters = width * costs.parameters(ModelSize(**SIZES["nano"]), VOCABULARY)
    assert scalars["before_parameters_bytes"] == parameters
    assert scalars["before_gradients_bytes"] == (0 if more.get("passes") == "forward" else parameters)
    adamw = "optimizer" not in more or more["optimizer"].startswith("adamw")
    state = 2 * parameters if adamw and "passes" not in more else 0
    assert scalars["before_optimizer_state_bytes"] == pytest.approx(state, rel=0.001)


def spec() -> StepSpec:
    return StepSpec(ModelSize(**SIZES["nano"]), VOCABULARY, context=32, batch=2)


def test_a_step_after_the_first_is_what_is_predicted() -> None:
    """Gradients and state made on the spot leave what two whole steps leave."""
    primed = predicted.predict(spec(), setting("nano")).scalars()

    class TwoSteps(Step):
        def prime(self) -> None:
            self.run()

    def two_steps() -> Step:
        made = step.build(spec(), setting("nano"), steps=2)
        made.__class__ = TwoSteps
        return made

    # A second batch of tokens is there.
    assert predicted_memory.predict(two_steps).scalars() == pytest.approx(primed, rel=1e-4, abs=1000)


def test_the_same_cell_is_predicted_alike_to_the_byte() -> None:
    first, second = (measure(Memory("predicted", "nano", 16), setting("nano")).scalars for _ in range(2))
    assert first == second


def test_what_recomputation_saves_is_predicted_too() -> None:
    plain = measure(Memory("predicted", "nano", 128, 2), setting("nano")).scalars
    grouped = measure(Memory("predicted", "nano", 128, 2, groups="1"), setting("nano")).scalars
    assert grouped["forward_after_activations_bytes"] < 0.6 * plain["forward_after_activations_bytes"]


@pytest.mark.slow
def test_fused_attention_saves_the_score_matrices_of_the_xl_size() -> None:
    naive, fused = (
        measure(Memory("predicted", "xl", 2048, 1, attention=attention), setting("xl")).scalars
        for attention in ("naive", "sdpa")
    )
    scores = SIZES["xl"]["heads"] * 2048**2 * 4
    saved = naive["forward_after_activations_bytes"] - fused["forward_after_activations_bytes"]
    # The probabilities of each block, less the logsumexp that fused attention keeps in their place.
    assert saved == pytest.approx(SIZES["xl"]["layers"] * scores, rel=0.03)


# -- published figures -------------------------------------------------------------------------------------------------

# Two RTX 5090, torch's caching allocator, as published.
FORWARD_MIB = {
    ("fp32", 128): 13_212.807,
    ("fp32", 256): 13_319.170,
    ("fp32", 512): 13_753.580,
    ("bf16", 512): 19_857.580,
}


@pytest.mark.parametrize(("precision", "context"), FORWARD_MIB)
def test_a_forward_pass_of_the_largest_size_comes_near_the_published_peak(precision: str, context: int) -> None:
    cell = Memory("predicted", "2.7B", context, 4, precision, passes="forward")  # type: ignore[arg-type]
    peak = measure(cell, setting("2.7B")).scalars["peak_memory_bytes"]
    assert peak / MIB == pytest.approx(FORWARD_MIB[precision, context], rel=0.03)


@pytest.mark.slow
def test_a_step_of_xl_in_bfloat16_comes_near_the_published_figures() -> None:
    cell = Memory("predicted", "xl", 256, 2, "bf16", "bf16")
    scalars = measure(cell, setting("xl")).scalars
    assert scalars["before_parameters_bytes"] / MIB == pytest.approx(3811.331, rel=1e-5)
    assert scalars["before_optimizer_state_bytes"] / MIB == pytest.approx(7622.664, rel=1e-4)
    assert scalars["peak_memory_bytes"] / MIB == pytest.approx(19_530.686, rel=0.03)


@pytest.mark.slow
def test_a_training_step_of_the_largest_size_is_predicted_in_less_than_four_gib() -> None:
    script = f"""
import json
from stepbench.experiments.memory.cell import Cell as Memory
from stepbench.experiments.memory.measure import measure
from stepbench.measure import memory
from stepbench.measure.measurement import Setting
from stepbench.pipeline.state import States
definition = {{"vocabulary": {VOCABULARY}, "size": {SIZES["2.7B"]!r}}}
setting = Setting(device="cpu", protocol={{"seed": 0}}, definition=definition)
scalars = measure(Memory("predicted", "2.7B", 512), setting).scalars
print(json.dumps([scalars["peak_memory_bytes"], memory.peak_resident_bytes()]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    peak, resident = json.loads(done.stdout.splitlines()[-1])
    assert resident < 4 * 2**30
    state = 16 * costs.parameters(ModelSize(**SIZES["2.7B"]), VOCABULARY)
    assert state < peak < 1.6 * state


# -- what would not fit ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of 16 MiB, into which no training step of nano fits."""
    monkeypatch.setattr(fit, "capacity_bytes", lambda _device: 16 * MIB)


@pytest.mark.usefixtures("small_device")
def test_what_is_predicted_not_to_fit_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator_memory, "watch", lambda *_a, **_k: pytest.fail("it was started"))
    with pytest.raises(PredictedOutOfMemoryError, match=r"predicted to need 0.1 GiB, but the device has 0.0"):
        measure(Memory("measured", "nano", 64), setting("nano"))


@pytest.mark.usefixtures("small_device")
def test_without_trust_it_is_started_all_the_same() -> None:
    measured = measure(Memory("measured", "nano", 16, 1), setting("nano", trust_prediction=False))
    assert measured.scalars["peak_memory_bytes"] > 16 * MIB


@pytest.mark.usefixtures("small_device")
def test_a_prediction_alone_is_never_refused() -> None:
    assert measure(Memory("predicted", "nano", 64), setting("nano")).scalars["peak_memory_bytes"] > 16 * MIB


@pytest.mark.usefixtures("small_device")
@pytest.mark.parametrize(("trusted", "status"), [(True, "oom"), (False, "ok")])
def test_the_record_says_oom_and_predicted(tmp_path: Path, trusted: bool, status: str) -> None:
    order = {
        "path": str(Memory("measured", "nano", 16, 1).path("here")),
        "root": str(Path.cwd()),
        "device": "cpu",
        "protocol": {"seed": 0, "threads": 1},
        "definition": {"vocabulary": VOCABULARY, "size": SIZES["nano"]},
        "tokens": None,
        "shards": None,
        "artifacts": str(tmp_path / "cell"),
        "trust_prediction": trusted,
        "host_memory_gib": None,
        "deadline": None,
    }
    limit = resource.getrlimit(resource.RLIMIT_AS)
    outcome = attempt.attempt(order)
    assert resource.getrlimit(resource.RLIMIT_AS) == limit
    assert outcome["status"] == status
    assert outcome.get("kind") == (None if status == "ok" else "predicted_oom")
    assert "traceback" not in outcome


@pytest.mark.parametrize(
    ("failure", "trusted", "kind"),
    [
        ("predicted_oom", True, "fresh"),
        ("predicted_oom", False, "failed"),
        ("oom", False, "fresh"),
    ],
)
def test_what_was_not_started_is_started_once_predictions_are_not_trusted(
    tmp_path: Path, failure: str, trusted: bool, kind: str
) -> None:
    bench = synthetic.bench(tmp_path, memory=[{"source": ["measured"], "size": ["xl"], "context": [2048]}])
    bench.settings["trust_prediction"] = trusted  # type: ignore[index]
    (cell,) = bench.grid("memory")
    synthetic.write(bench, "memory", cell, status="oom", kind=failure, reason="90 GiB")
    state = States(bench).of(cell)
    assert state.kind == kind
    assert all("trust_prediction" in each for each in state.reasons)


def test_predictions_are_trusted_unless_said_otherwise(tmp_path: Path) -> None:
    settings = synthetic.settings(memory=[])
    del settings["trust_prediction"]
    schema = synthetic.ROOT / config.SCHEMA
    assert synthetic.Bench(settings, root=tmp_path, schema=schema).trust_prediction
    assert not synthetic.Bench(settings | {"trust_prediction": False}, root=tmp_path, schema=schema).trust_prediction
    with pytest.raises(config.ConfigError, match="`trust_prediction` must be true"):
        synthetic.Bench(settings | {"trust_prediction": "no"}, root=tmp_path, schema=schema)


# -- what cannot be ----------------------------------------------------------------------------------------------------


def test_a_device_that_cannot_be_watched_is_unsupported() -> None:
    apple = dataclasses.replace(setting("nano"), device="mps")
    with pytest.raises(UnsupportedError, match="memory is watched on cuda and cpu, got mps"):
        measure(Memory("predicted", "nano", 16), apple)


def test_parameters_in_bfloat16_need_the_precision() -> None:
    with pytest.raises(UnsupportedError, match="parameters in bf16 need the precision bf16, got fp32"):
        measure(Memory("predicted", "nano", 16, parameter_dtype="bf16"), setting("nano"))


def test_tf32_is_unsupported_on_a_cpu() -> None:
    with pytest.raises(UnsupportedError, match="tf32 needs a CUDA device"):
        measure(Memory("measured", "nano", 16, precision="tf32"), setting("nano"))


def test_a_record_keeps_the_timeline() -> None:
    measured = measure(Memory("measured", "nano", 16, 1), setting("nano"))
    timeline = measured.details["timeline"]
    assert timeline["unit"] == "s"
    assert [name for name, _, _ in timeline["spans"]] == ["forward", "backward", "optimizer"]
    assert max(map(sum, zip(*timeline["bytes"].values(), strict=True))) == measured.scalars["peak_memory_bytes"]
    predicted = measure(Memory("predicted", "nano", 16, 1), setting("nano"))
    assert predicted.details["timeline"]["unit"] == "changes"
