"""Models that need values cannot be predicted: they are measured unpredicted, and refused where only predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepbench.experiments.checkpointing import measure as checkpointing
from stepbench.experiments.checkpointing.cell import Cell as Checkpointing
from stepbench.experiments.end_to_end import measure as end_to_end
from stepbench.experiments.end_to_end.cell import Cell as EndToEnd
from stepbench.experiments.fits import measure as fits
from stepbench.experiments.fits.cell import Cell as Fits
from stepbench.experiments.fsdp import measure as fsdp
from stepbench.experiments.fsdp.cell import Cell as Fsdp
from stepbench.experiments.ladder import measure as ladder
from stepbench.experiments.ladder.cell import Cell as Ladder
from stepbench.experiments.memory import measure as memory
from stepbench.experiments.memory.cell import Cell as Memory
from stepbench.measure import fit
from stepbench.measure.measurement import Setting, UnsupportedError

FILE = Path(__file__).with_name("my_models.py")
CONTEXT, BATCH, VOCABULARY = 16, 2, 97
SENTENCE = "needs_values` cannot be predicted: on tensors without values it raises "


def setting(function: str = "needs_values", **more: Any) -> Setting:
    return Setting(
        device="cpu",
        protocol={"warmup_steps": 1, "measured_steps": 1, "seed": 0, "threads": 2},
        definition={"vocabulary": VOCABULARY, "size": {"module": f"{FILE}:{function}"}, **more},
    )


@pytest.fixture
def with_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend a device with a memory of its own, where whether a step fits is asked before it is started."""
    monkeypatch.setattr(fit, "capacity_bytes", lambda _device: 80 * fit.GIB)


@pytest.mark.usefixtures("with_memory")
def test_where_steps_are_asked_whether_they_fit_it_is_started() -> None:
    assert len(end_to_end.measure(EndToEnd("mine", CONTEXT, BATCH), setting()).samples["step_s"]) == 1
    rung = {"rung": {"optimizer": "adamw_foreach"}, "kept": {}}
    found = ladder.measure(Ladder("mine", CONTEXT, "foreach", BATCH), setting(**rung))
    assert found.scalars["predicted_peak_bytes"] is None


@pytest.mark.usefixtures("with_memory")
def test_memory_is_measured_without_a_prediction() -> None:
    found = memory.measure(Memory("measured", "mine", CONTEXT, BATCH), setting())
    assert found.scalars["predicted_peak_bytes"] is None
    assert found.scalars["peak_memory_bytes"] > 4 * 4 * VOCABULARY**2
    assert SENTENCE in found.protocol["unpredicted"]


@pytest.mark.usefixtures("with_memory")
def test_checkpointing_is_measured_and_what_a_block_saves_is_seen_on_real_tensors() -> None:
    cell = Checkpointing("measured", "mine", CONTEXT, BATCH, groups="1")
    found = checkpointing.measure(cell, setting("needs_values_in_blocks"))
    assert found.scalars["blocks"] == 3
    plain = checkpointing.measure(cell, setting("mixer")).details["saved_by_one_block"]
    saved, expected = (
        sum(each["saved_bytes"] for each in kept) for kept in (found.details["saved_by_one_block"], plain)
    )
    assert saved == pytest.approx(expected, rel=1e-3)  # a scalar each that blocks are multiplied by


@pytest.mark.usefixtures("with_memory")
def test_ranks_are_measured_without_a_prediction() -> None:
    found = fsdp.measure(Fsdp("measured", "mine", "fsdp", CONTEXT, BATCH), setting())
    assert found.scalars["predicted_peak_memory_bytes"] is None
    assert found.scalars["peak_memory_bytes"] > 0
    assert SENTENCE in found.protocol["unpredicted"]


@pytest.mark.parametrize(
    ("experiment", "cell"),
    [
        (memory, Memory("predicted", "mine", CONTEXT, BATCH)),
        (fits, Fits("predicted", "mine")),
        (fits, Fits("measured", "mine", CONTEXT, memory_mib=64)),
        (fsdp, Fsdp("predicted", "mine", "fsdp", CONTEXT, BATCH)),
        (checkpointing, Checkpointing("predicted", "mine", CONTEXT, BATCH)),
    ],
)
def test_what_needs_a_prediction_is_refused_with_one_sentence(experiment: Any, cell: Any) -> None:
    with pytest.raises(UnsupportedError) as caught:
        experiment.measure(cell, setting())
    assert SENTENCE in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_kernel_that_needs_values_is_named() -> None:
    size = {"d_model": 32, "d_ff": 48, "layers": 2, "heads": 2, "key_heads": 2}
    kernel = {"function": f"{FILE}:kernel_that_needs_values"}
    with pytest.raises(UnsupportedError, match="kernel_that_needs_values` cannot be predicted"):
        memory.measure(Memory("predicted", "nano", CONTEXT, BATCH, attention="mine"), setting(size=size, kernel=kernel))
