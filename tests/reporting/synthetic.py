"""Records that nobody measured: a bench in a folder of its own, and plausible numbers for its cells."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np

from stepbench.experiments.ladder.cell import settings_of, steps_of
from stepbench.models import costs
from stepbench.models.sizes import ModelSize
from stepbench.pipeline import config, records
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States

ROOT = Path(__file__).resolve().parents[2]
FACTS = {
    "device": "cpu",
    "device_name": "Imaginary CPU",
    "device_count": 2,
    "device_memory_bytes": None,
    "host_memory_bytes": 2**34,
    "cpu": "Imaginary CPU",
    "cpu_cores": 2,
    "os": "Linux-6.1-x86_64",
    "driver": None,
    "torch": "2.13.0+cpu",
    "triton": "3.7.1",
    "cuda": None,
    "python": "3.11.7",
    "git_commit": "0123456789abcdef0123456789abcdef01234567",
    "git_dirty": False,
    "before": {"load_average_1min": 0.5},
    "after": {"load_average_1min": 0.6},
}
PEAK_FLOPS_PER_S = {"fp32": 1.2e11, "tf32": 1.2e11, "bf16": 3e11, "fp16": 3e11}
COPY_BYTES_PER_S = 2e10


def settings(**grids: list[dict[str, Any]]) -> dict[str, Any]:
    """Return config.yaml with these grids, on the scale `cpu`, in place of its own; all of its own if none is given."""
    found = copy.deepcopy(dict(config.read(ROOT / "config.yaml")))
    found |= {"device": "cpu", "scale": "cpu", "machine": "imaginary-2c"}
    if grids:
        found["experiments"] = {name: {"cpu": products} for name, products in grids.items()}
    return found


def bench(root: Path, **grids: list[dict[str, Any]]) -> Bench:
    """Return a bench in `root` with these grids."""
    return Bench(settings(**grids), root=root, schema=ROOT / config.SCHEMA)


def write(bench: Bench, name: str, cell: Any, **fields: Any) -> records.Record:
    """Write a fresh record of the cell with these fields and return it."""
    content: dict[str, Any] = {
        "status": "ok",
        "fingerprint": States(bench).fingerprint(cell),
        "started": "2026-01-01T00:00:00.000+00:00",
        "duration_s": 1.0,
        "environment": FACTS,
        "protocol": {**bench.definition(cell), "threads": bench.threads, "clock": "host clock"},
        **fields,
    }
    record = records.Record(experiment=name, cell=cell.values, **content)
    records.write(bench.root / bench.path(cell), record)
    return record


def fill(bench: Bench, *names: str, seed: int = 0, spread: float = 0.01) -> None:
    """Write a plausible record for every configured cell of these experiments, or of all."""
    rng = np.random.default_rng(seed)
    for name in names or bench.names:
        for cell in bench.grid(name):
            write(bench, name, cell, **MEASURED[name](bench, cell, rng, spread))


def decoder_step(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return samples and scalars of a decoder's step: FLOPs over half the peak, and a constant."""
    size = ModelSize(**bench.settings["sizes"][cell.size])
    passes, precision = getattr(cell, "passes", "train_step"), getattr(cell, "precision", "fp32")
    shape = {"vocabulary": 10_000, "batch": getattr(cell, "batch", 4), "context": getattr(cell, "context", 128)}
    forward, backward = costs.forward_flops(size, **shape), costs.backward_flops(size, **shape)
    parameters = costs.parameters(size, 10_000)
    speed = 0.5 * PEAK_FLOPS_PER_S[precision] * (1.3 if getattr(cell, "implementation", "") == "compiled" else 1.0)
    times = {"forward": forward / speed + 1e-3, "backward": backward / speed + 2e-3, "optimizer": parameters * 4e-10}
    count = {"forward": 1, "forward_backward": 2, "train_step": 3}[passes]
    process = rng.lognormal(0, spread)
    measured, warm = bench.protocol["measured_steps"], getattr(cell, "warmup", bench.protocol["warmup_steps"])
    samples: dict[str, list[float]] = {}
    for phase, seconds in list(times.items())[:count]:
        draw = process * seconds * rng.lognormal(0, spread, warm + measured)
        draw[:3] *= np.array([6.0, 1.4, 1.1])[: draw.size]
        samples[f"warmup_{phase}_s"], samples[f"{phase}_s"] = draw[:warm].tolist(), draw[warm:].tolist()
    whole = process * 0.98 * sum(list(times.values())[:count])
    samples["step_s"] = (whole * rng.lognormal(0, spread, measured)).tolist()
    samples["loss_nats"] = np.linspace(9.4, 9.0, warm + 2 * measured).tolist()
    scalars = {
        "parameters": parameters,
        "tokens_per_step": shape["batch"] * shape["context"],
        "forward_flops": forward,
        "backward_flops": backward,
        "least_flops": costs.least_flops(size, **shape, backward=count > 1, checkpointed=False),
        "peak_memory_bytes": None,
        "peak_host_bytes": int(3e8 + 16 * parameters),
    }
    return {"samples": samples, "scalars": scalars}


def ceilings(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return samples and scalars of matrix products that come near the peak as they grow, or of copies."""
    samples, scalars = {}, {}
    count = bench.protocol["measured_steps"]
    if cell.operation == "matmul":
        for extent in (256, 512, 1024, 2048):
            work = 2 * extent**3
            seconds = work / PEAK_FLOPS_PER_S[cell.dtype] + 2e-4
            samples[f"matmul_{extent}_s"] = (seconds * rng.lognormal(0, spread, count)).tolist()
            scalars[f"matmul_{extent}_flops"] = work
    else:
        for extent in (1, 16, 128):
            work = 2 * extent * 2**20
            samples[f"copy_{extent}_mib_s"] = (work / COPY_BYTES_PER_S * rng.lognormal(0, spread, count)).tolist()
            scalars[f"copy_{extent}_mib_moved_bytes"] = work
    return {"samples": samples, "scalars": scalars}


def numerics(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return sums with an error that grows, or dtypes."""
    if cell.case != "accumulation":
        low = "bfloat16" if cell.case.endswith("bf16") else "float16"
        names = {"parameters": "float32", "first_layer": low, "layer_norm": low, "rms_norm": low, "logits": low}
        cpu = names | {"loss": "float32", "gradients": "float32"}
        cuda = names | {"layer_norm": "float32", "rms_norm": "float32", "loss": "float32"}
        return {
            "scalars": {
                f"{device}_{name}_dtype": dtype
                for device, found in (("cpu", cpu), ("cuda", cuda))
                for name, dtype in found.items()
            }
        }
    terms = list(range(10, 1001, 10))
    growth = {"fp32": 1e-8, "fp16": 4e-5, "fp32_sum_of_fp16_terms": 2e-6, "fp32_sum_of_upcast_fp16_terms": 2e-6}
    sums = {way: [term * 0.01 + error * term for term in terms] for way, error in growth.items()}
    exact = [term * 0.01 for term in terms]
    return {
        "scalars": {f"sum_{way}": curve[-1] for way, curve in sums.items()} | {"sum_fp64": exact[-1]},
        "details": {"terms": terms, "sums": sums, "sums_fp64": exact},
    }


def attention(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return samples and scalars of an attention operator, or why there are none without a GPU."""
    speeds = {"naive": 0.1, "tiled": 0.02, "sdpa_math": 0.08, "sdpa_flash": 0.3, "compiled": 0.15}
    if cell.implementation not in speeds:
        return {"status": "unsupported", "reason": f"{cell.implementation} needs a CUDA device, got cpu"}
    forward = 2 * cell.batch * cell.heads * cell.seq**2 * cell.head_dim
    speed = speeds[cell.implementation] * PEAK_FLOPS_PER_S[cell.dtype]
    rows = cell.batch * cell.heads * cell.seq * 4
    scores = 0 if cell.implementation in ("tiled", "sdpa_flash") else rows * cell.seq
    count = bench.protocol["measured_steps"]
    return {
        "samples": {
            "forward_s": (forward / speed * rng.lognormal(0, spread, count)).tolist(),
            "backward_s": (2.5 * forward / speed * rng.lognormal(0, spread, count)).tolist(),
        },
        "scalars": {
            "forward_flops": forward,
            "backward_flops": forward * 5 // 2,
            "saved_bytes": 4 * rows * cell.head_dim + rows + scores,
            "peak_memory_bytes": None,
            **{f"{name}_error": 1e-6 for name in ("o", "dq", "dk", "dv")},
            **{f"{name}_plain_error": 2e-6 for name in ("o", "dq", "dk", "dv")},
        },
    }


# How long a token takes with a rung, over how long without.
RUNGS = {"sdpa": 0.8, "foreach_adamw": 0.9, "fused_adamw": 1.1, "chunked_head": 0.95, "compiled": 0.6}


def ladder(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return samples of the step before a rung and with it, or why there are none."""
    if cell.rung not in RUNGS:
        return {"status": "unsupported", "reason": f"{cell.rung} needs a CUDA device, got cpu"}
    found, definition = decoder_step(bench, cell, rng, spread), bench.definition(cell)
    base, step = (settings_of(each) for each in steps_of(definition))
    before = 3 * math.prod(RUNGS[name] for name in definition["kept"])
    samples = {"base_s": before, "step_s": before * RUNGS[cell.rung]}
    whole = found["samples"]["step_s"]
    found["samples"] = {name: [factor * seconds for seconds in whole] for name, factor in samples.items()}
    found["scalars"] |= {f"base_{key}": found["scalars"][key] for key in ("tokens_per_step", "least_flops")}
    found["scalars"] |= {"predicted_peak_bytes": 10**8}
    return {**found, "details": {"kept": list(definition["kept"]), "base": base, "step": step}}


MEASURED = {
    "ladder": ladder,
    "end_to_end": decoder_step,
    "warmup": decoder_step,
    "ceilings": ceilings,
    "numerics": numerics,
    "attention": attention,
}
