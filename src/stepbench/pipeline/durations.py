"""About how long a cell takes on a GPU that has never measured one like it: its FLOPs over the vendor's peaks.

An estimate for planning, good to a factor of two or three; measured durations take its place as soon as there are some.
It is capped by `limits.time_s`.
"""

from __future__ import annotations

import math
import re
from typing import Any

from stepbench.models import costs
from stepbench.models.architecture import Architecture
from stepbench.models.own import is_own
from stepbench.models.presets import Preset
from stepbench.models.sizes import ModelSize
from stepbench.pipeline import own_files
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.cells import Cell

START_S = 5.0  # Snakemake's job, torch, CUDA's context, the checks of what is computed
COMPILE_S = 15.0  # torch.compile with a cache that is half warm
KERNEL_S = 4.0  # Triton's kernels of one shape
RANKS_S = 12.0  # starting ranks and the equivalence check
PREDICTED_S = 6.0  # a step on fake tensors
# Of the vendor's peak: whole steps in eager PyTorch, attention in one kernel, and attention in many.
STEP_SHARE, FUSED_SHARE, UNFUSED_SHARE = 0.2, 0.3, 0.03
UNFUSED = ("naive", "compiled", "tiled", "sdpa_math")
ON_RANKS_KINDS = 5  # of steps: by phases, whole, without communication, and twice beside another strategy
# Of a GPU that no table knows: those of a small one.
UNKNOWN_FLOPS_PER_S = {"fp32": 8e12, "fp16": 3e13}
HALF_RATE_IN_FP64 = re.compile(r"V100|A100|H100|H200|GH200|B200|GB200|B300")


def of(bench: Bench, cell: Cell) -> float | None:
    """Return about how many seconds a cell takes, or None on a device that is no GPU, and for a model of one's own."""
    if bench.scale == "cpu" or is_own(own_files.entries(bench.settings, cell).get("size")):
        return None
    ranks = getattr(cell, "ranks", 1)
    predicted = getattr(cell, "source", "measured") == "predicted"
    if ranks > bench.host.device_count and not predicted:
        return START_S  # it is recorded as unsupported
    found = START_S + (RANKS_S if ranks > 1 and not predicted else 0.0)
    if hasattr(cell, "seq"):
        found += _attention_s(bench, cell)
    elif hasattr(cell, "size"):
        found += PREDICTED_S if predicted else _step_s(bench, cell)
    elif hasattr(cell, "preset"):
        found += _epochs_s(bench, cell)
    return min(found, bench.settings["limits"]["time_s"])


def _rate(bench: Bench, dtype: str) -> float:
    """Return the vendor's FLOP/s in a dtype; where it names none, that of the next one that it names."""
    from stepbench.reporting import peaks  # 0.2 s, of numpy; the Snakefile is read without it

    vendor = peaks.vendor_figures(bench.host.device_name.split(", ")[0]) or {"flops_per_s": UNKNOWN_FLOPS_PER_S}
    rates = vendor["flops_per_s"]
    return float(rates.get(dtype) or (rates["fp16"] if dtype == "bf16" else rates["fp32"]))


def _attention_s(bench: Bench, cell: Any) -> float:
    protocol = bench.protocol
    calls = protocol["warmup_steps"] + 3 * protocol["measured_steps"]
    flops = 14 * cell.batch * cell.heads * cell.seq**2 * cell.head_dim / (2 if cell.causal else 1)
    share = UNFUSED_SHARE if cell.implementation in UNFUSED else FUSED_SHARE
    fp64 = _rate(bench, "fp32") / (2 if HALF_RATE_IN_FP64.search(bench.host.device_name) else 64)
    checked_s = 14 * cell.batch * cell.heads * cell.seq**2 * cell.head_dim / (0.5 * fp64)
    compiled_s = COMPILE_S if cell.implementation in ("compiled", "flex") else KERNEL_S
    return compiled_s + calls * flops / (share * _rate(bench, cell.dtype)) + checked_s


def _step_s(bench: Bench, cell: Any) -> float:
    section = own_files.entries(bench.settings, cell)["size"]
    kind = Architecture if cell.size in bench.settings.get("models", {}) else ModelSize
    size = kind.from_config(cell.size, section)
    vocabulary = section.get("vocabulary", bench.settings["vocabulary"])
    context, batch = getattr(cell, "context", 512), getattr(cell, "batch", 4)
    passes = 1 if getattr(cell, "passes", "train_step") == "forward" else 3
    state_bytes = (4 if passes == 1 else 16) * costs.parameters(size, vocabulary)
    if state_bytes > (bench.host.device_memory_bytes or math.inf):
        return PREDICTED_S  # it is not started
    flops = passes * costs.forward_flops(size, vocabulary=vocabulary, batch=batch, context=context)
    dtype = getattr(cell, "compute_dtype", "fp32")
    dtype = dtype if dtype != "fp32" else getattr(cell, "precision", "fp32")
    steps = bench.protocol["warmup_steps"] + 2 * bench.protocol["measured_steps"]
    steps *= ON_RANKS_KINDS if getattr(cell, "ranks", 1) > 1 else 1
    compiled_s = COMPILE_S if getattr(cell, "implementation", "eager") == "compiled" else 0.0
    return compiled_s + PREDICTED_S / 2 + steps * flops / (STEP_SHARE * _rate(bench, dtype))


def _epochs_s(bench: Bench, cell: Any) -> float:
    preset = Preset.from_config(cell.preset, bench.settings["presets"][cell.preset])
    # Pairs of `context` tokens of two bytes a side.
    steps = cell.steps or cell.megabytes * 10**6 / (4 * cell.context * cell.batch * cell.ranks)
    layers = preset.encoder_layers + 1.5 * preset.decoder_layers
    entries = layers * (4 * preset.d_model**2 + 3 * preset.d_model * preset.d_ff) + preset.vocabulary * preset.d_model
    flops = 6 * entries * cell.batch * cell.context
    written_s = cell.megabytes / 100
    return written_s + 2 * steps * max(0.01, flops / (STEP_SHARE * _rate(bench, cell.precision)))
