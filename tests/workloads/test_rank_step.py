"""What a step on ranks is refused for, and what every strategy of the registry says about itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from stepbench.measure import fit
from stepbench.measure.measurement import PredictedOutOfMemoryError, Setting
from stepbench.models.sizes import ModelSize
from stepbench.parallel.names import STRATEGIES
from stepbench.parallel.strategies import strategy
from stepbench.workloads import rank_step
from stepbench.workloads.spec import StepSpec

SPEC = StepSpec(
    ModelSize(d_model=32, d_ff=64, layers=2, heads=2), 50, context=16, batch=2, strategy="bucketed", ranks=4
)
SETTING = Setting(device="cpu", protocol={"seed": 0})


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"implementation": "compiled"}, "a step on ranks must be eager, got compiled"),
        ({"precision": "fp16"}, "fp16 needs a gradient scaler that all ranks share"),
        ({"precision": "bf16", "compute_dtype": "bf16"}, "a compute dtype of bf16 needs the precision fp32, got bf16"),
        ({"prefetch": 1}, "`prefetch` must be none for bucketed, which has none, got 1"),
        ({"strategy": "flat", "bucket_mib": 5}, "`bucket_mib` must be none for flat, which has none, got 5"),
        ({"bucket_mib": 0}, "`bucket_mib` must be none or at least 1, got 0"),
        ({"attention": "triton"}, "triton needs"),
    ],
)
def test_what_ranks_cannot_run_is_told(more: dict[str, Any], reason: str) -> None:
    found = rank_step.unsupported_reason(dataclasses.replace(SPEC, **more), "cpu")
    assert found is not None
    assert found.startswith(reason)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_can_run_the_plain_step(name: str) -> None:
    assert rank_step.unsupported_reason(dataclasses.replace(SPEC, strategy=name), "cpu") is None


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_that_reads_no_values_is_predicted_with_fused_attention_and_checkpointing(name: str) -> None:
    specs = [
        dataclasses.replace(SPEC, strategy=name, attention="sdpa", head="chunked", groups=groups)
        for groups in ((), (1,))
    ]
    plain, grouped = (rank_step.predict(spec, SETTING) for spec in specs)
    if strategy(name).looks_at_values:
        assert plain is grouped is None
        return
    assert plain is not None
    assert grouped is not None
    assert grouped.after(grouped.spans[0])["activations"] < plain.after(plain.spans[0])["activations"]


def test_what_is_predicted_not_to_fit_on_a_rank_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "capacity_bytes", lambda _device: 1000)
    with pytest.raises(PredictedOutOfMemoryError):
        rank_step.check_fit(SPEC, SETTING)
    rank_step.check_fit(dataclasses.replace(SPEC, strategy="torch_ddp"), SETTING)  # nobody can tell
    rank_step.check_fit(SPEC, dataclasses.replace(SETTING, trust_prediction=False))
