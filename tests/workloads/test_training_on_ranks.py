"""What a rank keeps when what stands beside its own step fails; the stages are given."""

import dataclasses
from typing import Any

import pytest
import torch
from tests.workloads.test_rank_step import SETTING, SPEC

from stepbench.workloads import training_on_ranks


def test_a_partner_that_fails_does_so_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> dict[str, list[float]]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nat length")

    def time(*_: Any, **__: Any) -> dict[str, Any]:
        return {"samples": {"step_s": [0.5]}, "scalars": {"peak_memory_bytes": 10}}

    monkeypatch.setattr(training_on_ranks.equivalence, "check", lambda *_: {"checked_steps": 1})
    monkeypatch.setattr(training_on_ranks, "_time", time)
    monkeypatch.setattr(training_on_ranks, "_time_in_turn", fail)
    partner = dataclasses.replace(SPEC, strategy="torch_ddp")
    setting = dataclasses.asdict(SETTING)
    found = training_on_ranks.run(setting=setting, spec=SPEC.plain(), beside=partner.plain())
    assert found["samples"] == {"step_s": [0.5]}
    assert found["scalars"] == {"checked_steps": 1, "peak_memory_bytes": 10}
    why = "timed in turn they raised OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert found["beside_reason"] == why
