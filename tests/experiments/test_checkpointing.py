"""What the checkpointing experiment measures, at a size that takes no time."""

import dataclasses
from typing import Any

import pytest
import torch

from stepbench.experiments.checkpointing.cell import Cell as Checkpointing
from stepbench.experiments.checkpointing.measure import measure
from stepbench.measure import fit
from stepbench.measure.measurement import Measurement, PredictedOutOfMemoryError, Setting, UnsupportedError

SETTING = Setting(
    device="cpu",
    protocol={"warmup_steps": 1, "measured_steps": 2, "seed": 0, "threads": 1},
    definition={"vocabulary": 20, "size": {"d_model": 32, "d_ff": 64, "layers": 4, "heads": 2}},
)


def cell(**more: Any) -> Checkpointing:
    return Checkpointing(**{"source": "measured", "size": "nano", "context": 64, "batch": 2, **more})


@pytest.fixture(scope="module")
def measured() -> dict[str, Measurement]:
    return {groups: measure(cell(groups=groups), SETTING) for groups in ("none", "1", "2", "4", "2-1")}


def test_larger_groups_keep_less_between_the_passes(measured: dict[str, Measurement]) -> None:
    kept = [measured[groups].scalars["kept_activation_bytes"] for groups in ("none", "1", "2", "4")]
    assert kept == sorted(kept, reverse=True)
    assert measured["2-1"].scalars["kept_activation_bytes"] == measured["2"].scalars["kept_activation_bytes"]


def test_small_groups_leave_the_smallest_peak(measured: dict[str, Measurement]) -> None:
    peaks = {key: each.scalars["peak_activation_bytes"] for key, each in measured.items()}
    assert peaks["1"] < peaks["2"] < peaks["4"]
    assert peaks["2-1"] < peaks["2"]
    # One group of all blocks computes everything again, and then everything is there at once.
    assert peaks["4"] >= 0.95 * peaks["none"]


def test_the_loss_is_the_same_to_the_bit(measured: dict[str, Measurement]) -> None:
    losses = [each.samples["loss_nats"] for each in measured.values()]
    assert all(each == losses[0] for each in losses)


def test_times_bytes_and_protocol_are_recorded(measured: dict[str, Measurement]) -> None:
    each = measured["2"]
    regions = ("forward", "backward", "optimizer", "step")
    counted = {f"{region}_{kind}": 2 for region in regions for kind in ("s", "page_faults", "system_s")}
    found = {key: len(values) for key, values in each.samples.items() if not key.startswith("warmup")}
    assert found == counted | {"loss_nats": 5}
    assert each.scalars["blocks"] == 4
    assert each.scalars["theoretical_best_blocks"] == 2.0
    assert each.protocol["optimizer"] == "adamw_foreach"
    assert each.details["timeline"]["spans"][0][0] == "forward"


def test_what_a_block_keeps_is_what_more_blocks_add(measured: dict[str, Measurement]) -> None:
    """Asked of fake tensors, by operation; held against what the allocator saw of whole steps."""
    saved = measured["none"].details["saved_by_one_block"]
    assert {"Softmax", "Silu", "Bmm"} <= {each["operation"] for each in saved}
    one_block = sum(each["saved_bytes"] for each in saved)
    one_input = 2 * 64 * 32 * 4
    difference = measured["none"].scalars["kept_activation_bytes"] - measured["1"].scalars["kept_activation_bytes"]
    # Four blocks' activations against four inputs; each block's input is among what it keeps.
    assert difference == pytest.approx(4 * (one_block - one_input), rel=0.05)
    assert measured["2"].details["saved_by_one_block"] == saved


@pytest.mark.parametrize("groups", ["5", "2-2", "1-2", "0", "2-0", "02", "-2", "2-", "none-1", "all"])
def test_groups_that_cannot_be_are_unsupported(groups: str) -> None:
    with pytest.raises(UnsupportedError, match=f"numbers of blocks from 4 to 1 such as 4 or 4-1, got {groups}$"):
        measure(cell(groups=groups), SETTING)


@pytest.mark.parametrize("groups", ["none", "1", "2", "4-2-1"])
def test_what_is_predicted_is_what_is_measured(groups: str) -> None:
    """Within a few kibibytes: more batches of tokens are there when it is measured."""
    predicted = measure(cell(source="predicted", groups=groups), SETTING)
    watched = measure(cell(groups=groups), SETTING)
    keys = ["peak_activation_bytes", "kept_activation_bytes", "peak_memory_bytes"]
    for key in keys:
        assert predicted.scalars[key] == pytest.approx(watched.scalars[key], abs=4096), key
    assert predicted.samples == {}
    assert predicted.details["saved_by_one_block"] == watched.details["saved_by_one_block"]


@pytest.mark.parametrize(
    "more",
    [
        {"attention": "sdpa"},
        {"attention": "tiled", "optimizer": "sgd"},
        {"precision": "bf16", "parameter_dtype": "bf16", "attention": "sdpa"},
    ],
    ids=lambda more: ",".join(more.values()),
)
def test_a_checkpointed_step_of_every_kind_is_measured(more: dict[str, Any]) -> None:
    plain, grouped = (measure(cell(groups=groups, **more), SETTING) for groups in ("none", "1"))
    assert grouped.samples["loss_nats"] == plain.samples["loss_nats"]
    assert grouped.scalars["kept_activation_bytes"] < plain.scalars["kept_activation_bytes"]
    assert grouped.protocol["attention"] == more["attention"]


GIB = 2**30


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "peak_gib"), [("none", 131.6), ("1", 8.97), ("2", 11.8), ("4", 19.2)])
def test_groups_of_the_largest_size_are_predicted(groups: str, peak_gib: float) -> None:
    """The figures of this project's own first version, of context 2048 and batch 4 in float32."""
    size = {"d_model": 2560, "d_ff": 10240, "layers": 32, "heads": 32}
    setting = dataclasses.replace(SETTING, definition={"vocabulary": 10_000, "size": size})
    found = measure(cell(source="predicted", size="2.7B", context=2048, batch=4, groups=groups), setting)
    assert found.scalars["peak_activation_bytes"] / GIB == pytest.approx(peak_gib, rel=0.005)


def test_what_is_predicted_not_to_fit_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "capacity_bytes", lambda _device: 1000)
    monkeypatch.setattr(torch.optim.AdamW, "step", _only_fake(torch.optim.AdamW.step))
    with pytest.raises(PredictedOutOfMemoryError):
        measure(cell(groups="1"), SETTING)


def _only_fake(step: Any) -> Any:
    """Return an optimizer's step that refuses parameters with values."""
    from torch._subclasses.fake_tensor import FakeTensor

    def stepped(self: Any, *arguments: Any) -> Any:
        assert all(isinstance(each, FakeTensor) for group in self.param_groups for each in group["params"])
        return step(self, *arguments)

    return stepped
