"""Plausible records of the experiments on several ranks: collectives, data parallelism, sharding, epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.reporting import synthetic

from stepbench.models import costs
from stepbench.models.sizes import ModelSize
from stepbench.pipeline.bench import Bench

LATENCY_S, BYTES_PER_S = 1e-4, 1e9
FORWARD_S, BACKWARD_S, UPDATE_S = 0.010, 0.020, 0.005
# What a strategy leaves exposed, of the 20 ms that its communication takes.
EXPOSED_S = {"none": 0.0, "naive": 0.030, "flat": 0.020, "overlapped": 0.012, "bucketed": 0.004, "torch_ddp": 0.0041}
UNTOLD_S = {"overlapped": 0.006}  # by which the step is longer although nobody waits
STATE_SHARE = {"replicated": 1.0, "ddp": 1.0}
TORCHS = ("torch_ddp", "torch_zero", "torch_fsdp2")


def by_rank(seconds: float, rng: np.random.Generator, spread: float, count: int, ranks: int) -> list[list[float]]:
    """Return samples of each rank; each of them is the slowest now and then."""
    return (seconds * rng.lognormal(0, spread, (ranks, count))).tolist()


def collectives(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return a call that costs a latency and its bytes."""
    seconds = LATENCY_S + cell.payload_bytes / BYTES_PER_S
    return {
        "samples": {"call_s": by_rank(seconds, rng, spread, bench.protocol["measured_steps"], cell.ranks)},
        "scalars": {"message_bytes": cell.payload_bytes},
    }


def data_parallel(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return a step without communication, and one that exposes some of it."""
    found = _step(bench, cell, rng, spread, EXPOSED_S[cell.strategy])
    base_s = FORWARD_S + BACKWARD_S + UPDATE_S
    whole_s = base_s + EXPOSED_S[cell.strategy] + UNTOLD_S.get(cell.strategy, 0.0)
    count = bench.protocol["measured_steps"]
    found["samples"] |= {
        "step_s": by_rank(whole_s, rng, spread, count, cell.ranks),
        "without_communication_s": by_rank(base_s, rng, spread, count, cell.ranks),
    }
    if cell.strategy == "bucketed":
        found["samples"] |= _beside(whole_s, 1.0, rng, spread, count, cell.ranks)
    if cell.strategy == "flat":
        busy_s = LATENCY_S + found["scalars"]["payload_bytes"] / BYTES_PER_S
        found["samples"]["all_reduce_busy_s"] = by_rank(busy_s, np.random.default_rng(0), spread, count, cell.ranks)
    if cell.strategy in TORCHS:
        del found["samples"]["comm_wait_s"]
        del found["scalars"]["collectives_per_step"]
        del found["scalars"]["payload_bytes"]
    return found


def encoder_decoder(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return epochs of which one rank more leaves nine tenths of each, and of which the disk takes a fifth."""
    steps, effective = cell.steps or 100, cell.batch * cell.ranks
    epoch_s = steps * cell.batch / 1000 / (0.9 if cell.ranks > 1 else 1.0) * (1.25 if cell.data == "disk" else 1.0)
    wait_s = epoch_s * (0.2 if cell.data == "disk" else 0.01)
    return {
        "samples": {
            "epoch_s": by_rank(epoch_s, rng, spread, 3, cell.ranks),
            "data_wait_s": by_rank(wait_s, rng, spread, 3, cell.ranks),
            "loss_nats": [[8.7, 8.6, 8.5]] * cell.ranks,
            "warmup_epoch_s": by_rank(2 * epoch_s, rng, spread, 1, cell.ranks),
        },
        "scalars": {
            "parameters": 3_500_000,
            "effective_batch": effective,
            "steps_per_epoch": steps,
            "samples_per_epoch": steps * effective,
            "tokens_per_epoch": steps * effective * 2 * cell.context,
            "epoch_flops": 10**12,
            "data_samples": 10**5,
            "sample_bytes": 2 * (2 * cell.context + 1),
            "loader_bytes_per_s": 5e7,
            "workers": 1,
            "peak_memory_bytes": None,
            "peak_host_bytes": 3 * 10**8,
            "utilisation_ratio": 0.97,
            "power_watts": None,
            "sm_clock_hz": None,
            "load_samples": 12,
        },
    }


def sharded(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return bytes of which a variant keeps its share, predicted to the byte, and a step that takes a little longer."""
    share = STATE_SHARE.get(cell.variant, 1 / cell.ranks)
    of_all = share if "fsdp" in cell.variant else 1.0
    size = ModelSize(**bench.settings["sizes"][cell.size])
    parameters = 4 * costs.parameters(size, 10_000)
    state = {"parameters": of_all, "gradients": of_all, "optimizer_state": 2 * share}
    moments = ("built", "synchronization_after", "optimizer_after", "peak")
    bytes_: dict[str, int] = {
        f"{moment}_{category}_bytes": 0 if moment == "built" and category != "parameters" else int(parameters * part)
        for moment in moments
        for category, part in state.items()
    }
    bytes_ |= {"peak_activations_bytes": 2**20, "peak_temporary_bytes": 2**19}
    bytes_["peak_memory_bytes"] = sum(value for key, value in bytes_.items() if key.startswith("peak_"))
    predicted = {f"predicted_{key}": value for key, value in bytes_.items()}
    if cell.source == "predicted":
        return {"scalars": {"parameters": parameters // 4, **predicted}}
    found = _step(bench, cell, rng, spread, 0.002)
    count = bench.protocol["measured_steps"]
    whole_s = FORWARD_S + BACKWARD_S + UPDATE_S + 0.002 / share
    found["samples"]["step_s"] = by_rank(whole_s, rng, spread, count, cell.ranks)
    if cell.variant in ("sharded_broadcast", "fsdp"):
        found["samples"] |= _beside(whole_s, 1.3, rng, spread, count, cell.ranks)
    found["scalars"] |= bytes_ | ({} if cell.variant == "torch_fsdp2" else predicted)
    if cell.variant in TORCHS:
        del found["samples"]["comm_wait_s"]
    else:
        found["samples"]["all_reduce_wait_s"] = by_rank(0.001, rng, spread, count, cell.ranks)
        found["samples"]["all_reduce_busy_s"] = by_rank(0.004, rng, spread, count, cell.ranks)
    return found


def _step(bench: Bench, cell: Any, rng: np.random.Generator, spread: float, exposed_s: float) -> dict[str, Any]:
    count = bench.protocol["measured_steps"]
    size = ModelSize(**bench.settings["sizes"][cell.size])
    parameters = costs.parameters(size, 10_000)
    times = {
        "forward": FORWARD_S,
        "backward": BACKWARD_S,
        "synchronization": exposed_s + 1e-6,
        "optimizer": UPDATE_S,
        "comm_wait": exposed_s,
    }
    spans, start = [], 0.0
    for name in ("forward", "backward", "synchronization", "optimizer"):
        spans.append([name, start, start + times[name]])
        start += times[name]
    lanes = {"computation": spans, "communication": [["all_reduce", 0.02, 0.03 + exposed_s]]}
    return {
        "samples": {f"{name}_s": by_rank(seconds, rng, spread, count, cell.ranks) for name, seconds in times.items()},
        "scalars": {
            "parameters": parameters,
            "tokens_per_step": cell.ranks * cell.batch * cell.context,
            "collectives_per_step": 3,
            "payload_bytes": 4 * parameters,
            "equivalence_difference_ratio": 1e-5,
            "equivalence_plain_ratio": 1e-5,
            "equivalence_tolerance_ratio": 4e-5,
        },
        "details": {"lanes": [lanes] * cell.ranks},
    }


def _beside(
    seconds: float, factor: float, rng: np.random.Generator, spread: float, count: int, ranks: int
) -> dict[str, Any]:
    return {
        "paired_s": by_rank(seconds, rng, spread, 2 * count, ranks),
        "beside_s": by_rank(factor * seconds, rng, spread, 2 * count, ranks),
    }


MEASURED = {
    "collectives": collectives,
    "data_parallel": data_parallel,
    "optimizer_sharding": sharded,
    "fsdp": sharded,
    "encoder_decoder": encoder_decoder,
}


def fill(bench: Bench, *names: str, seed: int = 0, spread: float = 0.01) -> None:
    """Write a plausible record for every configured cell of these experiments, or of all of them."""
    rng = np.random.default_rng(seed)
    for name in names or [each for each in bench.names if each in MEASURED]:
        for cell in bench.grid(name):
            synthetic.write(bench, name, cell, **MEASURED[name](bench, cell, rng, spread))
