"""What does low precision do to sums and to dtypes?"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stepbench.experiments.numerics.cell import TERM, TERMS, Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.models.precision import AUTOCAST

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
    """Run one step of a network of two linear layers with a LayerNorm between, and record each tensor's dtype.

    LayerNorm and RMSNorm are both looked at, since autocast's lists treat norms apart and the decoder uses the latter.
    """
    torch.manual_seed(setting.protocol["seed"])
    seen: dict[str, Any] = {}
    first, norm, last = nn.Linear(16, 32, bias=False), nn.LayerNorm(32), nn.Linear(32, 8, bias=False)
    rms_norm = nn.RMSNorm(32)
    network = nn.ModuleList([first, norm, rms_norm, last]).to(setting.device)
    x = torch.randn(4, 16, device=setting.device)
    target = torch.randint(0, 8, (4,), device=setting.device)
    with torch.autocast(setting.device, dtype=AUTOCAST[precision]):
        hidden = first(x)
        normed, rms_normed = norm(torch.relu(hidden)), rms_norm(torch.relu(hidden))
        logits = last(normed + rms_normed)
        loss = nn.functional.cross_entropy(logits, target)
    loss.backward()
    seen["parameters"] = next(network.parameters()).dtype
    seen["first_layer"] = hidden.dtype
    seen["layer_norm"] = normed.dtype
    seen["rms_norm"] = rms_normed.dtype
    seen["logits"] = logits.dtype
    seen["loss"] = loss.dtype
    seen["gradients"] = first.weight.grad.dtype  # type: ignore[union-attr]
    return Measurement(scalars={f"{name}_dtype": str(dtype).removeprefix("torch.") for name, dtype in seen.items()})
