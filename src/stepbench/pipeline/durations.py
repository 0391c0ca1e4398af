"""About how long a cell takes on a GPU that has never measured one like it: predicted FLOPs and bytes over the peaks.

The device is the one that config.yaml measures, perhaps a described one on which this process does not stand; its peaks
are its vendor's. A region takes the longer of its FLOPs and its bytes, each at the share of the peak that such work
reaches (a roofline), and a cell what it starts, compiles and checks besides.

An estimate for planning, good to a factor of two or three; measured durations take its place as soon as there are some.
It is capped by `limits.time_s`.

Source: Williams, Waterman and Patterson 2009, Roofline, Communications of the ACM 52(4).
"""

from __future__ import annotations

import functools
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
KERNEL_S = 4.0  # our Triton kernels of one shape
ENERGY_S = 1.5  # whole steps until a counter of energy has moved twice, a second apart
RANKS_S = 12.0  # starting ranks and the equivalence check
PREDICTED_S = 6.0  # a step on fake tensors
# Of the vendor's peak: products of a whole step, on tensor cores and in fp32 without them; attention in one kernel, and
# in many. With the first two and what launches take, 22 published steps on two GPUs are met within a factor of two.
STEP_SHARE, FP32_SHARE, FUSED_SHARE, UNFUSED_SHARE = 0.3, 0.6, 0.3, 0.1
BANDWIDTH_SHARE = 0.7  # of the vendor's: elementwise kernels and optimizers
UNFUSED = ("naive", "compiled", "tiled", "sdpa_math")
# How an operator and a peak are measured, which stands in modules that import torch; a test compares them. Of a score
# that is held against float64: six products of the head's width, and elements that are written or read.
CHECKED_SCORES, CHECKED_PRODUCTS, CHECKED_ELEMENTS, FP64_SHARE = 2**28, 6, 24, 0.5
MATRIX_DIMS, MAX_CALL_S, COPY_MIB = (1024, 2048, 4096, 8192, 16384), 0.5, (64, 256, 1024)
LOOPS_CALLS = 2  # to find out how many calls make a region
WITH_ENERGY = ("end_to_end", "ladder", "data_parallel", "optimizer_sharding", "fsdp")
ON_RANKS_KINDS = 5  # of steps: by phases, whole, without communication, and twice beside another strategy
# Of a GPU that no table knows: those of a small one.
UNKNOWN = {"flops_per_s": {"fp32": 8e12, "fp16": 3e13}, "bytes_per_s": 2.5e11}
HALF_RATE_IN_FP64 = re.compile(r"V100|A100|H100|H200|GH200|B200|GB200|B300")
WIDTHS = {"bf16": 2, "fp16": 2}  # bytes of an element in a dtype; 4 in others
# Bytes per parameter that a step moves, in fp32: forward and backward pass read weights, the backward pass writes
# gradients, and AdamW reads weight, gradient and two moments and writes weight and moments.
WEIGHT_BYTES = {"forward": 4, "forward_backward": 12, "train_step": 40}
# Elements that a block writes and reads again for each token, in units of its width, of its inner width, and of heads
# times context: norms, projections, rotations and sums; gate, up, their product; scores, mask and softmax.
WIDTH_ELEMENTS, INNER_ELEMENTS, SCORE_ELEMENTS, LOGIT_ELEMENTS = 12, 4, 3, 3
# A pass through one block cannot take less, because Python launches its kernels; torch.compile halves that.
BLOCK_LAUNCH_S = 6.5e-4
NVLINK_BYTES_PER_S = 25e9  # one link of the second to the fourth generation, in one direction
PCIE_LANE_BYTES_PER_S = {3: 0.98e9, 4: 1.97e9, 5: 3.94e9, 6: 7.56e9}
GLOO_BYTES_PER_S = 2e9  # through the host's memory
CALLS = 3  # of a collective, for each that is asked for: it is timed in loops, and checked


def of(bench: Bench, cell: Cell) -> float | None:
    """Return about how many seconds a cell takes, or None on a device that is no GPU, and for a model of one's own."""
    if bench.scale == "cpu" or is_own(own_files.entries(bench.settings, cell).get("size")):
        return None
    ranks, nodes = getattr(cell, "ranks", 1), getattr(cell, "nodes", 1)
    predicted = getattr(cell, "source", "measured") == "predicted"
    if ranks > nodes * bench.host.device_count and not predicted:
        return START_S  # it is recorded as unsupported
    found = START_S + (RANKS_S if ranks > 1 and not predicted else 0.0)
    if hasattr(cell, "seq"):
        found += _attention_s(bench, cell)
    elif hasattr(cell, "size"):
        found += PREDICTED_S if predicted else _steps_s(bench, cell)
    elif hasattr(cell, "preset"):
        found += _epochs_s(bench, cell)
    elif hasattr(cell, "payload_bytes"):
        found += _collective_s(bench, cell)
    elif hasattr(cell, "operation"):
        found += _ceiling_s(bench, cell)
    return min(found, bench.settings["limits"]["time_s"])


def of_peaks(bench: Bench) -> str:
    """Return whose peaks the estimates are made with, in words."""
    name = _name(bench)
    if _vendor(name) is UNKNOWN:
        return f"the peaks of a small GPU, because those of {name} are not known"
    return f"the vendor's peaks of {name}"


def step_s(bench: Bench, cell: Any) -> float:
    """Return about how long one step of a cell of a decoder takes."""
    shape, vocabulary = _model(bench, cell)
    context, batch = getattr(cell, "context", 512), getattr(cell, "batch", 4)
    passes = getattr(cell, "passes", "train_step")
    rounds = 1 if passes == "forward" else 3
    dtype = getattr(cell, "compute_dtype", "fp32")
    dtype = dtype if dtype != "fp32" else getattr(cell, "precision", "fp32")
    flops = rounds * costs.forward_flops(shape, vocabulary=vocabulary, batch=batch, context=context)
    elements = WIDTH_ELEMENTS * shape.d_model + INNER_ELEMENTS * shape.d_ff
    if getattr(cell, "attention", "naive") == "naive":
        elements += SCORE_ELEMENTS * shape.heads * context
    elements = shape.layers * elements + LOGIT_ELEMENTS * vocabulary
    moved = 2 * rounds * batch * context * elements * WIDTHS.get(dtype, 4)
    moved += WEIGHT_BYTES[passes] * costs.parameters(shape, vocabulary)
    launched_s = rounds * shape.layers * BLOCK_LAUNCH_S / (1 if _is_eager(cell) else 2)
    return max(flops / _step_rate(bench, dtype), moved / _bandwidth(bench), launched_s)


def _is_eager(cell: Any) -> bool:
    return getattr(cell, "implementation", "eager") == "eager"


def _name(bench: Bench) -> str:
    """Return the vendor's name of the device; of devices that differ, the first one's."""
    return bench.host.device_names[0]


@functools.cache
def _vendor(name: str) -> dict[str, Any]:
    from stepbench.reporting import peaks  # 0.2 s, of numpy; the Snakefile is read without it

    return peaks.vendor_figures(name) or UNKNOWN


def _model(bench: Bench, cell: Any) -> tuple[Architecture, int]:
    """Return the shape and the vocabulary of a cell's decoder."""
    section = own_files.entries(bench.settings, cell)["size"]
    kind = Architecture if cell.size in bench.settings.get("models", {}) else ModelSize
    vocabulary = section.get("vocabulary", bench.settings["vocabulary"])
    return Architecture.of(kind.from_config(cell.size, section)), vocabulary


def _rate(bench: Bench, dtype: str) -> float:
    """Return the vendor's FLOP/s in a dtype; where it names none, that of the next one that it names."""
    rates = _vendor(_name(bench))["flops_per_s"]
    return float(rates.get(dtype) or (rates["fp16"] if dtype == "bf16" else rates["fp32"]))


def _step_rate(bench: Bench, dtype: str) -> float:
    return (FP32_SHARE if dtype == "fp32" else STEP_SHARE) * _rate(bench, dtype)


def _bandwidth(bench: Bench) -> float:
    return BANDWIDTH_SHARE * float(_vendor(_name(bench))["bytes_per_s"])


def _attention_s(bench: Bench, cell: Any) -> float:
    protocol = bench.protocol
    calls = protocol["warmup_steps"] + 3 * protocol["measured_steps"]
    scores = cell.batch * cell.heads * cell.seq**2
    flops = 14 * scores * cell.head_dim
    if cell.implementation in UNFUSED:  # every score is there, masked or not; each is written and read in each pass
        moved = 3 * 2 * SCORE_ELEMENTS * scores * WIDTHS.get(cell.dtype, 4)
        call_s = max(flops / (UNFUSED_SHARE * _rate(bench, cell.dtype)), moved / _bandwidth(bench))
    else:
        call_s = flops / (2 if cell.causal else 1) / (FUSED_SHARE * _rate(bench, cell.dtype))
    compiled_s = COMPILE_S if cell.implementation in ("compiled", "flex") else 0.0
    compiled_s += KERNEL_S if cell.implementation.startswith("triton") else 0.0
    return compiled_s + calls * call_s + _check_s(bench, cell)


def _check_s(bench: Bench, cell: Any) -> float:
    """Return the time of holding an operator against float64, in which most GPUs reach a 64th of their fp32."""
    heads = min(cell.batch * cell.heads, max(2, CHECKED_SCORES // cell.seq**2))
    scores = heads * cell.seq**2 / (2 if cell.causal else 1)
    rate = _rate(bench, "fp32") / (2 if HALF_RATE_IN_FP64.search(bench.host.device_name) else 64)
    flops = 2 * CHECKED_PRODUCTS * scores * cell.head_dim
    return flops / (FP64_SHARE * rate) + 8 * CHECKED_ELEMENTS * scores / _bandwidth(bench)


def _ceiling_s(bench: Bench, cell: Any) -> float:
    """Return the time of a product or a copy at each size, up to one that would take too long."""
    calls = bench.protocol["warmup_steps"] + LOOPS_CALLS + bench.protocol["measured_steps"]
    if cell.operation == "copy":
        return calls * sum(2 * mib * 2**20 for mib in COPY_MIB) / _bandwidth(bench)
    call_s = [2 * n**3 / _step_rate(bench, cell.dtype) for n in MATRIX_DIMS]
    return calls * sum(each for each in call_s if each <= MAX_CALL_S)


def _steps_s(bench: Bench, cell: Any) -> float:
    passes = getattr(cell, "passes", "train_step")
    state_bytes = (4 if passes == "forward" else 16) * costs.parameters(*_model(bench, cell))
    if state_bytes > (bench.host.device_memory_bytes or math.inf):
        return PREDICTED_S  # it is not started
    warmup, measured = (bench.protocol[key] for key in ("warmup_steps", "measured_steps"))
    # Twice as many by phases and whole; a rung's and those of the step below it are whole.
    steps = 2 * (warmup + measured) if hasattr(cell, "rung") else warmup + 2 * measured
    steps *= ON_RANKS_KINDS if getattr(cell, "ranks", 1) > 1 else 1
    more_s = COMPILE_S * _compilations(bench, cell) + (ENERGY_S if cell.experiment in WITH_ENERGY else 0.0)
    if getattr(cell, "attention", "naive") == "triton" and getattr(cell, "replicate", 0) == 0:  # others use its cache
        more_s += KERNEL_S
    return more_s + PREDICTED_S / 2 + steps * step_s(bench, cell)


def _compilations(bench: Bench, cell: Any) -> int:
    """Return how many steps torch compiles: of a ladder, from the rung on that says so, the one below a rung too."""
    if not hasattr(cell, "rung"):
        return 0 if _is_eager(cell) else 1
    compiling = [each.get("implementation", "eager").startswith("compiled") for each in _rungs(bench, cell)]
    return sum(any(compiling[:end]) for end in (len(compiling) - 1, len(compiling)))


def _rungs(bench: Bench, cell: Any) -> list[Any]:
    """Return the settings of the rungs below a cell's and of its own, in the order of the ladder."""
    names = dict.fromkeys([*(each.rung for each in cell.builds_on(bench.grid(cell.experiment))), cell.rung])
    return [bench.settings["rungs"][name] for name in names]


def _epochs_s(bench: Bench, cell: Any) -> float:
    preset = Preset.from_config(cell.preset, bench.settings["presets"][cell.preset])
    # Pairs of `context` tokens of two bytes a side.
    steps = cell.steps or cell.megabytes * 10**6 / (4 * cell.context * cell.batch * cell.ranks)
    layers = preset.encoder_layers + 1.5 * preset.decoder_layers
    entries = layers * (4 * preset.d_model**2 + 3 * preset.d_model * preset.d_ff) + preset.vocabulary * preset.d_model
    flops = 6 * entries * cell.batch * cell.context
    moved = WEIGHT_BYTES["train_step"] * entries
    written_s = cell.megabytes / 100
    one_s = max(0.01, flops / _step_rate(bench, cell.precision), moved / _bandwidth(bench))
    return written_s + 2 * steps * one_s


def _collective_s(bench: Bench, cell: Any) -> float:
    """Return the time of a ring's messages, twice around for an all-reduce."""
    calls = CALLS * (bench.protocol["warmup_steps"] + bench.protocol["measured_steps"])
    rounds = 2 if cell.operation == "all_reduce" else 1
    sent = rounds * cell.payload_bytes * (cell.ranks - 1) / cell.ranks
    return calls * sent / (GLOO_BYTES_PER_S if cell.backend == "gloo" else _link(bench, cell.nodes))


def _link(bench: Bench, nodes: int) -> float:
    """Return the bytes/s between two of the machine's GPUs as far as it describes itself, or else of config.yaml."""
    known, assumed = bench.interconnect, bench.settings.get("network")
    if nodes == 1 and (links := known.get("nvlinks")):
        return float(links * NVLINK_BYTES_PER_S)
    lane = PCIE_LANE_BYTES_PER_S.get(known.get("pcie_generation") or 0)
    if nodes == 1 and lane and (lanes := known.get("pcie_lanes")):
        return float(lanes * lane)
    if assumed is None:
        return GLOO_BYTES_PER_S
    return float(assumed["inter_node" if nodes > 1 else "intra_node"]["bandwidth_gb_per_s"] * 1e9)
