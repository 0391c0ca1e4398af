"""Plausible records of the experiments that look inside a step: memory, checkpointing, profile."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.reporting import synthetic

from stepbench.measure.memory_timeline import Change, Claim, Span, Timeline, build
from stepbench.models import costs
from stepbench.models.sizes import ModelSize
from stepbench.pipeline.bench import Bench

COUNT = {"forward": 1, "forward_backward": 2, "train_step": 3}


def timeline(
    parameter_bytes: int, activation_bytes: int, temporary_bytes: int, passes: str = "train_step", unit: str = "s"
) -> Timeline:
    """Return a step with these bytes: activations in the forward pass, temporary ones in each phase."""
    phases = ("forward", "backward", "optimizer")[: COUNT[passes]]
    changes, claims, spans = [Change(0.0, 1, parameter_bytes)], [Claim(0.1, 1, "parameters")], []
    if passes != "forward":
        changes.append(Change(0.01, 2, parameter_bytes))
        claims.append(Claim(0.1, 2, "gradients"))
    if passes == "train_step":
        changes.append(Change(0.02, 3, 2 * parameter_bytes))
        claims.append(Claim(0.1, 3, "optimizer_state"))
    for index, phase in enumerate(phases, 1):
        if phase == "forward" and passes != "forward":
            changes.append(Change(index + 0.1, 4, activation_bytes))
        changes += [Change(index + 0.2, 5, temporary_bytes), Change(index + 0.3, 5, -temporary_bytes)]
        if phase == "backward":
            changes.append(Change(index + 0.4, 4, -activation_bytes))
        spans.append(Span(phase, index + 0.05, index + 0.9))
    return build(changes, claims, spans, unit=unit, built=0)


def memory(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return a timeline whose activations grow with the context; what is measured takes a little more."""
    size = ModelSize(**bench.settings["sizes"][cell.size])
    parameters = costs.parameters(size, 10_000)
    activations = 100 * size.layers * cell.batch * cell.context * size.d_model
    predicted = timeline(4 * parameters, activations, 10**6, cell.passes, "changes")
    if cell.source == "predicted":
        found, known = predicted, {}
    else:
        found = timeline(4 * parameters, activations, 10**6 + 5000, cell.passes)
        known = {"predicted_peak_bytes": predicted.scalars()["peak_memory_bytes"]}
    return {
        "scalars": {"parameters": parameters, **known, **found.scalars()},
        "details": {"timeline": found.details()},
    }


def checkpointing(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return what N/k inputs and k blocks come to, and a third more time for each level."""
    layers = bench.settings["sizes"][cell.size]["layers"]
    sizes = [] if cell.groups == "none" else [int(size) for size in cell.groups.split("-")]
    k, inner = [*sizes, None, None][:2]
    levels = len(sizes)
    kept = 30 * layers if k is None else -(-layers // k)
    again = 0 if k is None else 30 * k if inner is None else k // inner + 30 * inner
    unit = 2**20
    found = timeline(4 * unit, kept * unit, again * unit + 1)
    seconds = 0.1 * (1 + levels / 3) * rng.lognormal(0, spread)
    count = bench.protocol["measured_steps"]
    parts = dict(zip(("forward", "backward", "optimizer"), (0.3, 0.6, 0.1), strict=True))
    draws = {name: (seconds * share * rng.lognormal(0, spread, count)).tolist() for name, share in parts.items()}
    return {
        "samples": {
            **{f"{name}_s": values for name, values in draws.items()},
            "step_s": (seconds * rng.lognormal(0, spread, count)).tolist(),
        },
        "scalars": {
            "blocks": layers,
            "theoretical_best_blocks": layers**0.5,
            "peak_activation_bytes": (kept + again) * unit,
            "kept_activation_bytes": kept * unit,
            **found.scalars(),
        },
        "details": {
            "timeline": found.details(),
            "saved_by_one_block": [
                {"operation": "Softmax", "calls": 1, "saved_bytes": 20 * unit},
                {"operation": "Mul", "calls": 7, "saved_bytes": 9 * unit},
                {"operation": "Mm", "calls": 7, "saved_bytes": unit},
                {"operation": "View", "calls": 11, "saved_bytes": 0},
            ],
        },
    }


def profile(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return phases of which matrix products take the most, on the host alone."""
    phases = ("forward", "backward", "optimizer")[: COUNT[cell.passes]]
    seconds = dict(zip(phases, (0.03, 0.06, 0.01), strict=False))
    samples: dict[str, list[float]] = {
        f"profiled_{name}_s": (value * rng.lognormal(0, spread, 3)).tolist() for name, value in seconds.items()
    }
    samples["profiled_step_s"] = [1.02 * sum(step) for step in zip(*samples.values(), strict=True)]
    samples["step_s"] = [0.8 * samples["profiled_step_s"][0]] * bench.protocol["measured_steps"]
    names = {
        "forward": {"aten::mm": 0.6, "aten::_softmax": 0.2, "aten::view": 0.1},
        "backward": {"aten::mm": 0.7, "aten::mul": 0.1, "autograd::engine::evaluate_function: MmBackward0": 0.1},
        "optimizer": {"aten::sqrt": 0.5, "aten::addcdiv_": 0.2},
    }
    operators = [
        {"phase": phase, "name": name, "calls": 10.0, "self_s": share * seconds[phase], "device_s": 0.0}
        for phase in phases
        for name, share in names[phase].items()
    ]
    ranges = [
        {"phase": phase, "name": part, "calls": 4.0, "host_s": share * seconds[phase], "device_s": 0.0}
        for phase in phases
        if phase != "optimizer" and cell.implementation == "eager"
        for part, share in {"scores": 0.1, "softmax": 0.2, "values": 0.1}.items()
    ]
    return {
        "samples": samples,
        "scalars": {"parameters": 1000, "tokens_per_step": cell.batch * cell.context},
        "details": {
            "operators": operators,
            "kernels": [],
            "ranges": ranges,
            "trace": "cell.trace.json.gz",
            "nsys": {"reason": "nsys is not on the PATH"},
        },
    }


def fits(bench: Bench, cell: Any, rng: np.random.Generator, spread: float) -> dict[str, Any]:
    """Return a peak of 16 bytes for each parameter and 1 MiB for each token, or an edge one below the predicted."""
    size = ModelSize(**bench.settings["sizes"][cell.size])
    parameters = costs.parameters(size, 10_000)
    token_bytes = 2**20 if cell.groups == "none" else 2**17
    scalars = {"parameters": parameters}
    if cell.source == "measured":
        scalars |= {"limit_bytes": 2**30, "predicted_largest_batch": 40, "largest_batch": 39}
        scalars |= {"first_failing_batch": 40, "predicted_edge_bytes": 2**30 - 2**20}
    piece = {"most_tokens": None, "coefficients": [[16.0 * parameters, 0, 0, 0, token_bytes, 0]]}
    return {"scalars": scalars, "details": {"pieces": [piece], "most_context": None}}


MEASURED = {"memory": memory, "checkpointing": checkpointing, "profile": profile, "fits": fits}


def fill(bench: Bench, *names: str, seed: int = 0, spread: float = 0.01) -> None:
    """Write a plausible record for every configured cell of these experiments."""
    rng = np.random.default_rng(seed)
    for name in names:
        for cell in bench.grid(name):
            synthetic.write(bench, name, cell, **MEASURED[name](bench, cell, rng, spread))
