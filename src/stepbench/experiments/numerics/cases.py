"""The cases of the experiment and their names."""

from __future__ import annotations

WAYS = {
    "fp32": "fp32 terms, fp32 sum",
    "fp16": "fp16 terms, fp16 sum",
    "fp32_sum_of_fp16_terms": "fp16 terms, fp32 sum",
    "fp32_sum_of_upcast_fp16_terms": "fp16 terms, upcast first, fp32 sum",
}
TENSORS = ("parameters", "first_layer", "layer_norm", "rms_norm", "logits", "loss", "gradients")
CASES = {"autocast_fp16": "fp16", "autocast_bf16": "bf16"}  # the case -> its precision
