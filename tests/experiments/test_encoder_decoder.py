"""Whole epochs, on one rank and on two, from memory and from disk, at a size that takes no time."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.experiments import epochs_on_ranks

from stepbench.data import shards
from stepbench.data.shards import ShardError, ShardSet
from stepbench.experiments.encoder_decoder import data_set
from stepbench.experiments.encoder_decoder import measure as encoder_decoder
from stepbench.experiments.encoder_decoder.cell import Cell as EncoderDecoder
from stepbench.experiments.encoder_decoder.measure import MEASURED_EPOCHS, WARMUP_EPOCHS
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError
from stepbench.models.presets import Preset, parameters
from stepbench.parallel.outcome import RankError
from stepbench.workloads import ranks

PRESET = {"d_model": 16, "d_ff": 24, "encoder_layers": 1, "decoder_layers": 2, "heads": 2, "vocabulary": 90}
SETTING = Setting(
    device="cpu",
    protocol={"warmup_steps": 1, "measured_steps": 2, "seed": 3, "threads": 2},
    definition={"preset": PRESET},
)
CELLS = {
    "memory": EncoderDecoder("tiny", "memory", 1, 1, batch=4, context=8, steps=5, precision="fp32"),
    "disk": EncoderDecoder("tiny", "disk", 1, 1, batch=4, context=8, steps=5, precision="fp32"),
    "two": EncoderDecoder("tiny", "disk", 1, 2, batch=2, context=8, steps=5, precision="fp32"),
    "fp16": EncoderDecoder("tiny", "memory", 1, 1, batch=4, context=8, steps=5),
}
DATA = ShardSet(megabytes=1, context=8, vocabulary=90, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data") / DATA.name
    shards.write(DATA, made)
    return made


@pytest.fixture(scope="module")
def measured(folder: Path) -> Callable[[str], Measurement]:
    """Measure each cell once, by its name in `CELLS`."""

    @functools.cache
    def measured_(name: str) -> Measurement:
        cell = CELLS[name]
        on_disk = folder if cell.data == "disk" else None
        return encoder_decoder.measure(cell, dataclasses.replace(SETTING, shards=on_disk))

    return measured_


@pytest.mark.parametrize("name", CELLS)
def test_epochs_are_timed_by_rank_and_what_they_hold_is_counted(
    measured: Callable[[str], Measurement], name: str
) -> None:
    found, cell = measured(name), CELLS[name]
    for key, count in (
        ("epoch_s", MEASURED_EPOCHS),
        ("epoch_page_faults", MEASURED_EPOCHS),
        ("epoch_system_s", MEASURED_EPOCHS),
        ("data_wait_s", MEASURED_EPOCHS),
        ("loss_nats", MEASURED_EPOCHS),
        ("warmup_epoch_s", WARMUP_EPOCHS),
    ):
        assert [len(values) for values in found.samples[key]] == [count] * cell.ranks
    assert all(faults >= 0 for mine in found.samples["epoch_page_faults"] for faults in mine)
    waits, whole = found.samples["data_wait_s"], found.samples["epoch_s"]
    assert all(
        0 < wait < epoch
        for mine, all_ in zip(waits, whole, strict=True)
        for wait, epoch in zip(mine, all_, strict=True)
    )
    assert found.scalars["parameters"] == parameters(Preset(**PRESET))
    assert found.scalars["steps_per_epoch"] == 5
    assert found.scalars["effective_batch"] == 4
    assert found.scalars["samples_per_epoch"] == 20
    assert found.scalars["tokens_per_epoch"] == 320
    assert (found.scalars["data_samples"], found.scalars["sample_bytes"]) == (29_411, 34)
    assert found.scalars["loader_bytes_per_s"] > 0
    assert 0 < found.scalars["utilisation_ratio"] <= 1
    assert found.scalars["power_watts"] is None
    assert found.scalars["load_samples"] >= 1
    assert found.protocol["strategy"] == ("bucketed" if cell.ranks == 2 else "none")


def test_disk_and_memory_train_on_the_same_samples_in_the_same_order(measured: Callable[[str], Measurement]) -> None:
    assert measured("disk").samples["loss_nats"] == measured("memory").samples["loss_nats"]


def test_two_ranks_train_as_one_would_on_their_joined_batch(measured: Callable[[str], Measurement]) -> None:
    """Twenty steps in float32, summed in another order."""
    together = [sum(pair) / 2 for pair in zip(*measured("two").samples["loss_nats"], strict=True)]
    assert together == pytest.approx(measured("memory").samples["loss_nats"][0], rel=1e-5)
    first, second = measured("two").samples["loss_nats"]
    assert first != second  # each rank has samples of its own


def test_every_epoch_has_another_order_and_the_loss_is_that_of_random_tokens(
    measured: Callable[[str], Measurement],
) -> None:
    losses = measured("memory").samples["loss_nats"][0]
    assert len(set(losses)) == MEASURED_EPOCHS
    assert all(loss == pytest.approx(math.log(90), rel=0.05) for loss in losses)


def test_half_precision_trains_with_a_scaler_to_nearly_the_same_loss(measured: Callable[[str], Measurement]) -> None:
    half, single = (measured(name).samples["loss_nats"][0] for name in ("fp16", "memory"))
    assert half != single
    assert half == pytest.approx(single, rel=1e-2)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"megabytes": 0}, "`megabytes` must hold at least one sample of 34 bytes, got 0"),
        ({"steps": 10_000}, "an epoch needs 40000 samples or more, got 29411 in 1 MB"),
        ({"batch": 0}, "`batch` and `steps` must be at least 1, got 0"),
        ({"steps": 0}, "`batch` and `steps` must be at least 1, got 0"),
        ({"ranks": 3}, "3 ranks need a core each, got `protocol.threads` 2"),
        ({"attention": "triton"}, "triton"),
        ({"data": "disk"}, "an epoch from disk needs a folder of shards, got none"),
    ],
)
def test_what_cannot_be_measured_is_said_before_ranks_start(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], reason: str
) -> None:
    monkeypatch.setattr(ranks, "call", lambda *_, **__: pytest.fail("ranks were started"))
    with pytest.raises(UnsupportedError, match=reason.replace("(", r"\(")):
        encoder_decoder.measure(dataclasses.replace(CELLS["memory"], **changes), SETTING)


def test_a_damaged_shard_ends_the_cell_before_ranks_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "call", lambda *_, **__: pytest.fail("ranks were started"))
    shards.write(DATA, tmp_path)
    os.truncate(tmp_path / "shard_0000.bin", 10)
    with pytest.raises(ShardError, match=r"shard_0000\.bin: a shard must have 999974 bytes, got 10"):
        encoder_decoder.measure(CELLS["disk"], dataclasses.replace(SETTING, shards=tmp_path))


def test_what_a_cell_reads_from_disk_is_its_whole_definition() -> None:
    assert data_set.find(CELLS["disk"], PRESET, 3) == DATA
    assert data_set.find(CELLS["memory"], PRESET, 3) is None


@pytest.mark.parametrize("drift", [0.0, 1e-6])
def test_ranks_that_drift_apart_are_an_error(drift: float) -> None:
    if drift:
        with pytest.raises(RankError, match="all ranks must hold equal parameters, and they differ"):
            ranks.call(epochs_on_ranks.compare_parameters, SETTING, ranks=2, drift=drift)
    else:
        assert ranks.call(epochs_on_ranks.compare_parameters, SETTING, ranks=2, drift=drift) == [{}, {}]
