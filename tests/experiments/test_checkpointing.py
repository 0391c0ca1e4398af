"""What the checkpointing experiment measures, at a size that takes no time."""

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
    return Checkpointing("nano", context=64, batch=2, **more)


@pytest.fixture(scope="module")
def measured() -> dict[tuple[int | None, int | None], Measurement]:
    groupings = [(None, None), (1, None), (2, None), (4, None), (2, 1)]
    return {(k, inner): measure(cell(blocks_per_checkpoint=k, nested=inner), SETTING) for k, inner in groupings}


def test_larger_groups_keep_less_between_the_passes(measured: dict[Any, Measurement]) -> None:
    kept = [measured[k, None].scalars["kept_activation_bytes"] for k in (None, 1, 2, 4)]
    assert kept == sorted(kept, reverse=True)
    assert measured[2, 1].scalars["kept_activation_bytes"] == measured[2, None].scalars["kept_activation_bytes"]


def test_small_groups_leave_the_smallest_peak(measured: dict[Any, Measurement]) -> None:
    peaks = {key: each.scalars["peak_activation_bytes"] for key, each in measured.items()}
    assert peaks[1, None] < peaks[2, None] < peaks[4, None]
    assert peaks[2, 1] < peaks[2, None]
    # One group of all blocks computes everything again, and then everything is there at once.
    assert peaks[4, None] >= 0.95 * peaks[None, None]


def test_the_loss_is_the_same_to_the_bit(measured: dict[Any, Measurement]) -> None:
    losses = [each.samples["loss_nats"] for each in measured.values()]
    assert all(each == losses[0] for each in losses)


def test_times_bytes_and_protocol_are_recorded(measured: dict[Any, Measurement]) -> None:
    each = measured[2, None]
    assert {key: len(values) for key, values in each.samples.items() if not key.startswith("warmup")} == {
        "forward_s": 2, "backward_s": 2, "optimizer_s": 2, "step_s": 2, "loss_nats": 5,
    }  # fmt: skip
    assert each.scalars["blocks"] == 4
    assert each.scalars["theoretical_best_blocks"] == 2.0
    assert each.protocol["optimizer"] == "adamw_foreach"
    assert each.details["timeline"]["spans"][0][0] == "forward"


def test_what_a_block_keeps_is_what_more_blocks_add(measured: dict[Any, Measurement]) -> None:
    """Asked of fake tensors, by operation; held against what the allocator saw of whole steps."""
    saved = measured[None, None].details["saved_by_one_block"]
    assert {"Softmax", "Silu", "Bmm"} <= {each["operation"] for each in saved}
    one_block = sum(each["saved_bytes"] for each in saved)
    one_input = 2 * 64 * 32 * 4
    difference = (
        measured[None, None].scalars["kept_activation_bytes"] - measured[1, None].scalars["kept_activation_bytes"]
    )
    # Four blocks' activations against four inputs; each block's input is among what it keeps.
    assert difference == pytest.approx(4 * (one_block - one_input), rel=0.05)
    assert measured[2, None].details["saved_by_one_block"] == saved


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"nested": 2}, "nested groups need groups to be in, got blocks_per_checkpoint none, nested 2"),
        ({"blocks_per_checkpoint": 5}, r"groups of 4 blocks must get smaller, down to 1, got \[5\]"),
        ({"blocks_per_checkpoint": 2, "nested": 2}, r"got \[2, 2\]"),
        ({"blocks_per_checkpoint": 0}, r"got \[0\]"),
    ],
)
def test_groups_that_cannot_be_are_unsupported(more: dict[str, int], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        measure(cell(**more), SETTING)


def test_what_is_predicted_not_to_fit_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "capacity_bytes", lambda _device: 1000)
    monkeypatch.setattr(torch.optim.AdamW, "step", _only_fake(torch.optim.AdamW.step))
    with pytest.raises(PredictedOutOfMemoryError):
        measure(cell(blocks_per_checkpoint=1), SETTING)


def _only_fake(step: Any) -> Any:
    """Return an optimizer's step that refuses parameters with values."""
    from torch._subclasses.fake_tensor import FakeTensor

    def stepped(self: Any, *arguments: Any) -> Any:
        assert all(isinstance(each, FakeTensor) for group in self.param_groups for each in group["params"])
        return step(self, *arguments)

    return stepped
