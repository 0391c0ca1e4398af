"""What does low precision do to sums and to dtypes?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stepbench.experiments.numerics.cell import POLICIES, TERM, TERMS, Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.models.precision import AUTOCAST
from stepbench.versions import FakeTensorMode

SHAPES = ((32, 16), (8, 32), (32,), (32,), (32,))  # two layers, weight and bias of LayerNorm, weight of RMSNorm
SHOWN_TERMS = tuple(range(10, TERMS + 1, 10))


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Add 0.01 a thousand times in four ways, or look at the dtypes in a training step under autocast."""
    if cell.case == "accumulation":
        return _accumulate(setting.device)
    return _autocast(setting, cell.case.removeprefix("autocast_"))


def _accumulate(device: str) -> Measurement:
    """Return the running sums after each of `SHOWN_TERMS` terms beside the float64 sum of the decimal 0.01."""
    ways = {
        "fp32": (torch.float32, torch.float32),
        "fp16": (torch.float16, torch.float16),
        "fp32_sum_of_fp16_terms": (torch.float32, torch.float16),
        "fp32_sum_of_upcast_fp16_terms": (torch.float32, torch.float16),
    }
    curves: dict[str, list[float]] = {}
    for way, (sum_dtype, term_dtype) in ways.items():
        total = torch.tensor(0.0, dtype=sum_dtype, device=device)
        term = torch.tensor(TERM, dtype=term_dtype, device=device)
        curve = []
        for count in range(1, TERMS + 1):
            total += term.to(torch.float32) if "upcast" in way else term
            if count in SHOWN_TERMS:
                curve.append(float(total))
        curves[way] = curve
    exact = torch.full((TERMS,), TERM, dtype=torch.float64).cumsum(0)
    return Measurement(
        scalars={f"sum_{way}": curve[-1] for way, curve in curves.items()} | {"sum_fp64": float(exact[-1])},
        details={
            "terms": list(SHOWN_TERMS),
            "sums": curves,
            "sums_fp64": [float(exact[count - 1]) for count in SHOWN_TERMS],
        },
    )


def _autocast(setting: Setting, precision: str) -> Measurement:
    """Record each tensor's dtype in a step under the autocast of a CPU, of CUDA, and of the device itself."""
    torch.manual_seed(setting.protocol["seed"])
    scalars: dict[str, Any] = {}
    for device in dict.fromkeys((*POLICIES, setting.device)):
        found = _step(device, precision) if device in ("cpu", setting.device) else _fake_step(device, precision)
        scalars |= {f"{device}_{name}_dtype": str(dtype).removeprefix("torch.") for name, dtype in found.items()}
    return Measurement(scalars=scalars)


def _step(device: str, precision: str) -> dict[str, torch.dtype]:
    """Run one step of two linear layers with a LayerNorm and an RMSNorm between them, and return the dtypes.

    Both norms are looked at, since autocast's lists treat norms apart and the decoder uses the latter.
    """
    weights = [torch.randn(shape, device=device, requires_grad=True) for shape in SHAPES]
    x, target = torch.randn(4, 16, device=device), torch.randint(0, 8, (4,), device=device)
    with torch.autocast(device, dtype=AUTOCAST[precision]):
        seen, loss = _forward(weights, x, target)
    loss.backward()
    assert weights[0].grad is not None  # noqa: S101 - `backward` has set it
    return seen | {"gradients": weights[0].grad.dtype}


def _fake_step(device: str, precision: str) -> dict[str, torch.dtype]:
    """Ask for the dtypes of a device that is not there: the forward pass on fake tensors; autograd needs the device."""
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    with FakeTensorMode(), torch.no_grad():
        weights = [torch.empty(shape, device=device) for shape in SHAPES]
        x, target = torch.empty(4, 16, device=device), torch.empty(4, dtype=torch.int64, device=device)
        try:  # `torch.autocast` would turn itself off, because there is no such device
            torch.set_autocast_enabled(device, True)
            torch.set_autocast_dtype(device, AUTOCAST[precision])
            return _forward(weights, x, target)[0]
        finally:
            torch.set_autocast_enabled(device, before[0])
            torch.set_autocast_dtype(device, before[1])


def _forward(weights: Sequence[Tensor], x: Tensor, target: Tensor) -> tuple[dict[str, torch.dtype], Tensor]:
    """Return each tensor's dtype, and the loss."""
    first, last, norm, bias, rms_norm = weights
    hidden = functional.linear(x, first)
    normed = functional.layer_norm(torch.relu(hidden), norm.shape, norm, bias)
    rms_normed = functional.rms_norm(torch.relu(hidden), rms_norm.shape, rms_norm)
    logits = functional.linear(normed + rms_normed, last)
    loss = functional.cross_entropy(logits, target)
    seen = {
        "parameters": first.dtype,
        "first_layer": hidden.dtype,
        "layer_norm": normed.dtype,
        "rms_norm": rms_normed.dtype,
        "logits": logits.dtype,
        "loss": loss.dtype,
    }
    return seen, loss
