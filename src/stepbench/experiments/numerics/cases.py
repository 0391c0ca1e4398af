"""The cases of the experiment and their names."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from stepbench.experiments.numerics.cell import POLICIES, TERM, TERMS
from stepbench.reporting.points import Group

WAYS = {
    "fp32": "fp32 terms, fp32 sum",
    "fp16": "fp16 terms, fp16 sum",
    "fp32_sum_of_fp16_terms": "fp16 terms, fp32 sum",
    "fp32_sum_of_upcast_fp16_terms": "fp16 terms, upcast first, fp32 sum",
}
TENSORS = ("parameters", "first_layer", "layer_norm", "rms_norm", "logits", "loss", "gradients")
CASES = {"autocast_fp16": "fp16", "autocast_bf16": "bf16"}  # the case -> its precision
NAMES = {"cpu": "a CPU", "cuda": "CUDA", "mps": "MPS"}  # of a device


def rounding(way: str, error: float | None) -> dict[str, float | None]:
    """Return the `term` of a sum as its dtype holds it, and `rounding_ratio`, its share of the error."""
    dtype = np.float16 if way == "fp16" or "fp16_terms" in way else np.float32
    term = float(dtype(TERM))
    return {"term": term, "rounding_ratio": TERMS * (term - TERM) / error if error else None}


def devices_of(groups: Iterable[Group]) -> list[str]:
    """Return the devices whose autocast is shown: a CPU, CUDA, and the one that was measured on."""
    own = (str(record.environment.get("device")) for group in groups for record in group.records)
    return list(dict.fromkeys((*POLICIES, *(device for device in own if device in NAMES))))
