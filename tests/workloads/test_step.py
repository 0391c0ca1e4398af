"""The builder: what is specified is what is built, whatever is combined with what."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stepbench.experiments.end_to_end.cell import Cell as EndToEnd
from stepbench.measure import fit
from stepbench.measure.measurement import PredictedOutOfMemoryError, Setting, UnsupportedError, WrongResultError
from stepbench.models import costs
from stepbench.models.sizes import ModelSize
from stepbench.workloads import predicted, step, timed
from stepbench.workloads.spec import OPTIMIZERS, StepSpec

SPEC = StepSpec(ModelSize(d_model=32, d_ff=64, layers=2, heads=2), 50, context=16, batch=2)
SETTING = Setting(
    device="cpu",
    protocol={"warmup_steps": 1, "measured_steps": 1, "seed": 0, "threads": 1},
    definition={"vocabulary": 50, "size": dataclasses.asdict(SPEC.size)},
)


@pytest.fixture(autouse=True)
def _default_precision() -> Any:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def losses(steps: int = 3, **more: Any) -> list[float]:
    made = step.build(dataclasses.replace(SPEC, **more), SETTING, steps=steps)
    for _ in range(steps):
        made.run()
    return made.loss_values()


@pytest.mark.parametrize("attention", ["naive", "reference", "sdpa", "tiled"])
@pytest.mark.parametrize("groups", [(), (1,), (2, 1)])
def test_attention_and_checkpointing_change_no_loss(attention: str, groups: tuple[int, ...]) -> None:
    assert losses(attention=attention, groups=groups) == pytest.approx(losses(), rel=1e-5)


@pytest.mark.parametrize("more", [{}, {"precision": "bf16"}, {"parameter_dtype": "bf16", "precision": "bf16"}], ids=str)
def test_the_head_changes_no_loss(more: dict[str, Any]) -> None:
    tolerance = 5e-3 if more else 1e-5  # a gradient is rounded to bfloat16 elsewhere
    assert losses(head="chunked", **more) == pytest.approx(losses(**more), rel=tolerance)


def test_a_head_that_the_device_cannot_run_is_told() -> None:
    assert step.unsupported_reason(dataclasses.replace(SPEC, head="triton"), "cpu") == (
        "the head triton needs a CUDA device, got cpu"
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_optimizer_is_the_one_that_is_named(optimizer: str) -> None:
    made = step.build(dataclasses.replace(SPEC, optimizer=optimizer), SETTING, steps=1)
    found = made._optimizer
    assert type(found) is (torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW)
    chosen = {key: found.defaults[key] for key in ("foreach", "fused")}
    expected = {
        "adamw_loop": {"foreach": False, "fused": None},
        "adamw_foreach": {"foreach": True, "fused": None},
        "adamw_fused": {"foreach": None, "fused": True},
        "sgd": {"foreach": False, "fused": None},
    }
    assert chosen == expected[optimizer]


@pytest.mark.parametrize(
    ("passes", "phases"),
    [
        ("forward", ["forward"]),
        ("forward_backward", ["forward", "backward"]),
        ("train_step", ["forward", "backward", "optimizer"]),
    ],
)
def test_the_phases_are_those_of_the_passes(passes: str, phases: list[str]) -> None:
    made = step.build(dataclasses.replace(SPEC, passes=passes), SETTING, steps=1)
    assert list(made.phases) == phases
    made.run()
    gradients = [parameter.grad is not None for parameter in made.model.parameters()]
    assert all(gradients) if "backward" in phases else not any(gradients)


def test_parameters_have_their_dtype_and_compute_without_autocast() -> None:
    low = dataclasses.replace(SPEC, precision="bf16", parameter_dtype="bf16")
    made = step.build(low, SETTING, steps=1)
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.bfloat16}
    assert low.autocast_precision == "fp32"
    made.run()
    assert {parameter.grad.dtype for parameter in made.model.parameters()} == {torch.bfloat16}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"parameter_dtype": "bf16"}, "parameters in bf16 need the precision bf16, got fp32"),
        ({"precision": "tf32"}, "tf32 needs a CUDA device"),
        ({"attention": "triton"}, "triton needs"),
        ({"strategy": "naive", "passes": "forward"}, "a strategy needs whole training steps, got forward"),
    ],
)
def test_what_cannot_be_built_is_refused(more: dict[str, str], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        step.build(dataclasses.replace(SPEC, **more), SETTING, steps=1)


# -- predicted ---------------------------------------------------------------------------------------------------------

AXES: dict[str, list[Any]] = {
    "attention": ["sdpa", "tiled"],
    "groups": [(), (2, 1)],
    "optimizer": ["adamw_fused", "sgd"],
    "dtype": ["fp32", "bf16"],
}


@pytest.mark.parametrize("values", list(itertools.product(*AXES.values())), ids=str)
def test_every_combination_is_predicted(values: tuple[Any, ...]) -> None:
    attention, groups, optimizer, dtype = values
    spec = dataclasses.replace(
        SPEC, attention=attention, groups=groups, optimizer=optimizer, precision=dtype, parameter_dtype=dtype
    )
    found = predicted.predict(spec, SETTING)
    plain = predicted.predict(dataclasses.replace(spec, groups=()), SETTING)
    kept = [each.after(each.spans[0])["activations"] for each in (found, plain)]
    assert kept[0] < kept[1] if groups else kept[0] == kept[1]


def test_a_size_with_its_own_vocabulary_is_timed_predicted_and_checked(tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.arange(1000, dtype=np.uint16) % 50)
    size = {**dataclasses.asdict(SPEC.size), "vocabulary": 500}
    setting = dataclasses.replace(
        SETTING, definition={**SETTING.definition, "size": size}, tokens=tmp_path / "tokens.npy"
    )
    spec = StepSpec.of(EndToEnd("own", context=16, batch=2), setting)
    parameters = costs.parameters(SPEC.size, 500)
    found = timed.measure(spec, setting)  # which holds the first loss against that of a plain model
    assert found.scalars["parameters"] == parameters
    assert found.samples["loss_nats"][0] == pytest.approx(math.log(500), rel=0.02)
    assert predicted.predict(spec, setting).scalars()["before_parameters_bytes"] == 4 * parameters


def test_the_loss_of_a_long_context_is_checked_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naive attention, in which it is checked otherwise, may take more memory than the step."""
    loss = timed.measure(SPEC, SETTING).samples["loss_nats"][0]
    bound: list[str] = []
    bind = timed.api.bind
    monkeypatch.setattr(timed.api, "bind", lambda name: (bound.append(name), bind(name))[1])
    timed.check_loss(loss, SPEC, SETTING)
    monkeypatch.setattr(timed, "NAIVE_UP_TO", SPEC.context - 1)
    timed.check_loss(loss, SPEC, SETTING)
    assert bound == ["naive", "tiled"]
    with pytest.raises(WrongResultError, match="the first loss must be within"):
        timed.check_loss(1.001 * loss, SPEC, SETTING)


def test_a_compiled_step_is_not_predicted() -> None:
    with pytest.raises(UnsupportedError, match="memory is predicted of eager steps, got compiled"):
        predicted.predict(dataclasses.replace(SPEC, implementation="compiled"), SETTING)


def test_what_is_predicted_not_to_fit_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "capacity_bytes", lambda _device: 1000)
    with pytest.raises(PredictedOutOfMemoryError):
        timed.measure(SPEC, SETTING)
    assert timed.measure(SPEC, dataclasses.replace(SETTING, trust_prediction=False)).samples["step_s"]
    predicted.check_fit(SPEC, dataclasses.replace(SETTING, device="xpu"))  # nobody can tell there


# -- timed -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"attention": "sdpa", "groups": (1,), "optimizer": "adamw_fused"},
        {"attention": "tiled", "precision": "bf16", "parameter_dtype": "bf16"},
        {"groups": (2, 1), "precision": "bf16", "optimizer": "sgd"},
    ],
    ids=str,
)
def test_a_combination_is_timed_and_its_loss_checked(more: dict[str, Any]) -> None:
    found = timed.measure(dataclasses.replace(SPEC, **more), SETTING)
    assert len(found.samples["step_s"]) == 1
    assert found.protocol["optimizer"] == more.get("optimizer", "adamw_foreach")
    assert found.protocol["attention"] == more.get("attention", "naive")


@pytest.mark.parametrize(("heads", "context"), [(2, 16), (2, 128), (8, 256)])
def test_no_step_takes_more_than_the_formula_by_which_predictions_are_skipped(heads: int, context: int) -> None:
    size = ModelSize(d_model=64, d_ff=256, layers=3, heads=heads)
    spec = dataclasses.replace(SPEC, size=size, context=context)
    found = predicted.predict(spec, SETTING).scalars()["peak_memory_bytes"]
    assert found < predicted.most_bytes(size, spec) < 12 * found
