"""How fast does a training epoch run, with its data?"""

from __future__ import annotations

from typing import Any

import torch

from stepbench.data import shards
from stepbench.data.shards import ShardSet
from stepbench.experiments.encoder_decoder import data_set
from stepbench.experiments.encoder_decoder.cell import Cell
from stepbench.kernels.api import unsupported_reason
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError
from stepbench.models.precision import AUTOCAST, precision_reason
from stepbench.models.presets import Preset, parameters, step_flops
from stepbench.workloads import epochs_on_ranks, ranks

WARMUP_EPOCHS, MEASURED_EPOCHS = 1, 3


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Have the ranks train for whole epochs, with the data in memory or read from shards.

    Raises:
        UnsupportedError: this host cannot, or the data set cannot be made or is too small.
        stepbench.data.shards.ShardError: a shard is missing, cut or altered.
    """
    preset = Preset(**setting.definition["preset"])
    threads = ranks.threads_per_rank(setting, cell.ranks, cell.nodes)
    try:
        data = data_set.whole(cell, preset.vocabulary, setting.protocol["seed"])
    except ValueError as error:
        raise UnsupportedError(str(error)) from None
    if reason := _unsupported_reason(cell, setting, preset, data):
        raise UnsupportedError(reason)
    if setting.shards is not None and cell.data == "disk":
        shards.check(data, setting.shards)
    found_by_rank = ranks.call(
        epochs_on_ranks.run,
        setting,
        ranks=cell.ranks,
        nodes=cell.nodes,
        what={
            "data": cell.data,
            "megabytes": cell.megabytes,
            "batch": cell.batch,
            "context": cell.context,
            "steps": cell.steps,
            "precision": cell.precision,
            "attention": setting.kernel(cell.attention),
            "strategy": cell.strategy,
        },
        epochs={"warmup": WARMUP_EPOCHS, "measured": MEASURED_EPOCHS},
    )
    scalars = _together([each["scalars"] for each in found_by_rank])
    steps = scalars["steps_per_epoch"]
    effective = cell.batch * cell.ranks
    return Measurement(
        samples=ranks.by_rank(found_by_rank),
        scalars={
            "parameters": parameters(preset),
            "effective_batch": effective,
            "samples_per_epoch": steps * effective,
            "tokens_per_epoch": steps * effective * 2 * cell.context,
            "epoch_flops": steps * cell.ranks * step_flops(preset, batch=cell.batch, context=cell.context),
            "data_samples": data.samples,
            "sample_bytes": data.sample_bytes,
            **scalars,
        },
        details=ranks.named(found_by_rank),
        protocol={
            "warmup_epochs": WARMUP_EPOCHS,
            "measured_epochs": MEASURED_EPOCHS,
            "threads_per_rank": threads,
            "strategy": cell.strategy,
            "clock": found_by_rank[0]["clock"],
            "optimizer": "adamw_foreach",
        },
    )


def _unsupported_reason(cell: Cell, setting: Setting, preset: Preset, data: ShardSet) -> str | None:
    """Return why such an epoch cannot be run here, or None if it can."""
    if 0 in (cell.batch, cell.steps):
        return "`batch` and `steps` must be at least 1, got 0"
    needed = cell.batch * cell.ranks * (cell.steps or 1)
    if data.samples < needed:
        return f"an epoch needs {needed} samples or more, got {data.samples} in {cell.megabytes} MB"
    if cell.data == "disk" and setting.shards is None:
        return "an epoch from disk needs a folder of shards, got none"
    if reason := precision_reason(cell.precision, setting.device):
        return reason
    shape: dict[str, Any] = {
        "device": setting.device,
        "dtype": AUTOCAST.get(cell.precision, torch.float32),
        "head_dim": preset.head_dim,
        "q_len": cell.context,
    }
    attention = setting.kernel(cell.attention)
    reasons = (unsupported_reason(attention, is_causal=causal, **shape) for causal in (True, False))
    return next((reason for reason in reasons if reason), None)


def _together(by_rank: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the ranks come to: rates, power and calls add up, of a peak the largest counts, else the mean."""
    found: dict[str, Any] = {}
    for key in by_rank[0]:
        values = [each[key] for each in by_rank if each[key] is not None]
        if not values:
            found[key] = None
        elif key.endswith("_bytes_per_s") or key in ("power_watts", "allocator_retries", "device_allocations"):
            found[key] = sum(values)
        elif key.startswith("peak_"):
            found[key] = max(values)
        else:
            found[key] = sum(values) / len(values)
    return found | {key: by_rank[0][key] for key in ("steps_per_epoch", "workers")}
