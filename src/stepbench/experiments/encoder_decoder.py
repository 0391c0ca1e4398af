"""How fast does a training epoch run, with its data?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stepbench.experiments.experiment import Experiment
from stepbench.kernels.names import Name
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stepbench.data.shards import ShardSet
    from stepbench.models.presets import Preset
    from stepbench.reporting.frames import Results
    from stepbench.reporting.tables import Table

WARMUP_EPOCHS, MEASURED_EPOCHS = 1, 3


@dataclass(frozen=True)
class EncoderDecoder:
    """Epochs over synthetic pairs of `context` tokens a side; `batch` is one rank's, `steps` none is the whole data."""

    preset: str
    data: Literal["memory", "disk"]
    megabytes: int
    ranks: int
    batch: int = 32
    context: int = 128
    steps: int | None = None
    precision: Literal["fp16", "bf16", "fp32"] = "fp16"
    attention: Name = "sdpa"
    replicate: int = 0


def measure(cell: EncoderDecoder, setting: Setting) -> Measurement:
    """Have the ranks train for whole epochs, with the data in memory or read from shards.

    Raises:
        UnsupportedError: this host cannot, or the data set cannot be made or is too small.
        stepbench.data.shards.ShardError: a shard is missing, cut or altered.
    """
    from stepbench.data import shards
    from stepbench.experiments import _epochs_on_ranks, _ranks
    from stepbench.models.presets import Preset, parameters, step_flops

    preset = Preset(**setting.definition["preset"])
    threads = _ranks.threads_per_rank(setting, cell.ranks)
    try:
        data = _data_set(cell, preset.vocabulary, setting.protocol["seed"])
    except ValueError as error:
        raise UnsupportedError(str(error)) from None
    if reason := _unsupported_reason(cell, setting, preset, data):
        raise UnsupportedError(reason)
    if setting.shards is not None and cell.data == "disk":
        shards.check(data, setting.shards)
    found_by_rank = _ranks.call(
        _epochs_on_ranks.run,
        setting,
        ranks=cell.ranks,
        what={
            "data": cell.data,
            "megabytes": cell.megabytes,
            "batch": cell.batch,
            "context": cell.context,
            "steps": cell.steps,
            "precision": cell.precision,
            "attention": cell.attention,
        },
        epochs={"warmup": WARMUP_EPOCHS, "measured": MEASURED_EPOCHS},
    )
    scalars = _together([each["scalars"] for each in found_by_rank])
    steps = scalars["steps_per_epoch"]
    effective = cell.batch * cell.ranks
    return Measurement(
        samples=_ranks.by_rank(found_by_rank),
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
        protocol={
            "warmup_epochs": WARMUP_EPOCHS,
            "measured_epochs": MEASURED_EPOCHS,
            "threads_per_rank": threads,
            "strategy": _epochs_on_ranks.strategy(cell.ranks),
            "clock": found_by_rank[0]["clock"],
            "optimizer": "AdamW",
        },
    )


def _unsupported_reason(cell: EncoderDecoder, setting: Setting, preset: Preset, data: ShardSet) -> str | None:
    """Return why such an epoch cannot be run here, or None if it can."""
    import torch

    from stepbench.kernels.api import unsupported_reason
    from stepbench.models.training import AUTOCAST, precision_reason

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
    reasons = (unsupported_reason(cell.attention, is_causal=causal, **shape) for causal in (True, False))
    return next((reason for reason in reasons if reason), None)


def _data_set(cell: EncoderDecoder, vocabulary: int, seed: int) -> ShardSet:
    from stepbench.data.shards import ShardSet

    return ShardSet(cell.megabytes, cell.context, vocabulary, seed)


def _together(by_rank: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the ranks come to: rates and power add up, of a peak the largest counts, of the rest the mean."""
    found: dict[str, Any] = {}
    for key in by_rank[0]:
        values = [each[key] for each in by_rank if each[key] is not None]
        if not values:
            found[key] = None
        elif key.endswith("_bytes_per_s") or key == "power_watts":
            found[key] = sum(values)
        elif key.startswith("peak_"):
            found[key] = max(values)
        else:
            found[key] = sum(values) / len(values)
    return found | {key: by_rank[0][key] for key in ("steps_per_epoch", "workers")}


def find_shards(cell: EncoderDecoder, preset: Mapping[str, int], seed: int) -> ShardSet | None:
    """Return the data set that a cell reads from disk."""
    return _data_set(cell, preset["vocabulary"], seed) if cell.data == "disk" else None


# -- what is told of it; nothing above uses what is below, so that no number goes stale with a table's layout ----------


def tabulate(results: Results) -> list[Table]:
    """Return the summary, the epochs one by one, and what disk and ranks change."""
    from stepbench.reporting import epoch_tables

    return [
        epoch_tables.summary(results),
        epoch_tables.epochs(results),
        epoch_tables.disk(results),
        epoch_tables.scaling(results),
    ]


def plot(results: Results) -> dict[str, Figure]:
    """Return throughput and the share of waiting for data."""
    from stepbench.reporting import epoch_figures

    return {"throughput": epoch_figures.throughput(results)}


def find(results: Results) -> list[str]:
    """Return the throughput, what the disk costs, and what more ranks bring."""
    from stepbench.reporting import epoch_findings

    return epoch_findings.find(results)


EXPERIMENT = Experiment(
    name="encoder_decoder",
    title="Whole epochs of an encoder-decoder",
    question="How fast does a training epoch run, with its data?",
    cell=EncoderDecoder,
    measure=measure,
    settings=("protocol",),
    table_names=("summary", "epochs", "disk", "scaling"),
    tabulate=tabulate,
    figure_names=("throughput",),
    plot=plot,
    find=find,
    shards=find_shards,
)
