"""Models of one's own with parameters that no forward pass uses: they have neither gradients nor optimizer state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepbench.experiments.data_parallel import measure as data_parallel
from stepbench.experiments.data_parallel.cell import Cell as DataParallel
from stepbench.experiments.fsdp import measure as fsdp
from stepbench.experiments.fsdp.cell import Cell as Fsdp
from stepbench.experiments.memory import measure as memory
from stepbench.experiments.memory.cell import Cell as Memory
from stepbench.experiments.optimizer_sharding import measure as optimizer_sharding
from stepbench.experiments.optimizer_sharding.cell import Cell as OptimizerSharding
from stepbench.measure.measurement import Setting

CONTEXT, BATCH = 16, 2
SETTING = Setting(
    device="cpu",
    protocol={"warmup_steps": 1, "measured_steps": 1, "seed": 0, "threads": 2},
    definition={"vocabulary": 97, "size": {"module": f"{Path(__file__).with_name('my_models.py')}:unused"}},
)
UNUSED = 200 * 200 + 200


def test_memory_counts_no_gradients_or_moments_of_them() -> None:
    scalars = memory.measure(Memory("measured", "mine", CONTEXT, BATCH), SETTING).scalars
    assert scalars["predicted_peak_bytes"] == pytest.approx(scalars["peak_memory_bytes"], rel=0.01)
    alone = memory.measure(Memory("predicted", "mine", CONTEXT, BATCH), SETTING).scalars
    used = scalars["parameters"] - UNUSED
    assert alone["peak_optimizer_state_bytes"] < 4 * 2 * used + 100
    assert alone["peak_gradients_bytes"] <= 4 * used


@pytest.mark.parametrize("variant", ["ddp", "fsdp"])
def test_fsdp_is_predicted_and_measured(variant: Any) -> None:
    scalars = fsdp.measure(Fsdp("measured", "mine", variant, CONTEXT, BATCH), SETTING).scalars
    # Buffers of gradients are there for all.
    assert scalars["predicted_peak_memory_bytes"] == pytest.approx(scalars["peak_memory_bytes"], rel=0.1)


def test_data_parallel_is_timed_beside_torchs_own() -> None:
    found = data_parallel.measure(DataParallel("mine", "bucketed", CONTEXT, BATCH), SETTING)
    assert "beside_reason" not in found.details
    assert found.samples["beside_s"]


@pytest.mark.parametrize("variant", ["sharded_broadcast", "sharded_reduce_scatter"])
def test_a_sharded_optimizer_is_predicted(variant: Any) -> None:
    found = optimizer_sharding.measure(OptimizerSharding("measured", "mine", variant, CONTEXT, BATCH), SETTING)
    assert found.scalars["predicted_peak_memory_bytes"] > 0
