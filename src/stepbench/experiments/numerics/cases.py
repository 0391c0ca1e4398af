"""The cases and how they are named."""

from __future__ import annotations

from stepbench.reporting.frames import Group, Results

WAYS = {
    "fp32": "fp32 terms, fp32 sum",
    "fp16": "fp16 terms, fp16 sum",
    "fp32_sum_of_fp16_terms": "fp16 terms, fp32 sum",
    "fp32_sum_of_upcast_fp16_terms": "fp16 terms, upcast first, fp32 sum",
}
TENSORS = ("parameters", "first_layer", "layer_norm", "rms_norm", "logits", "loss", "gradients")
CASES = ("autocast_fp16", "autocast_bf16")


def find_case(results: Results, case: str) -> Group | None:
    """Return the point of a case, or None where the grid lacks it."""
    return next((group for group in results.groups() if group.point["case"] == case), None)
