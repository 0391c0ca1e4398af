"""The precisions that a step may compute in, and which of them a device has.

`fp32` computes in float32 and `tf32` in float32 whose matrix products are TF32; `bf16` and `fp16` are autocast around
forward pass and loss, with parameters in float32.
"""

from __future__ import annotations

import torch

from stepbench import versions

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precision_reason(precision: str, device: str) -> str | None:
    """Return why `device` cannot compute in `precision`, or None if it can."""
    if precision == "tf32":
        if device != "cuda":
            return f"tf32 needs a CUDA device of compute capability 8.0 or later, got {device}"
        if torch.cuda.get_device_capability() < (8, 0):
            return f"tf32 needs compute capability 8.0 or later, got {torch.cuda.get_device_capability()}"
    if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return f"bf16 needs a CUDA device that computes in it, got {torch.cuda.get_device_name()}"
    return None


def set_precision(precision: str) -> None:
    """Have float32 matrix products computed in float32, or in TF32 for `tf32`; the whole process is affected."""
    versions.set_float32_products(tf32=precision == "tf32")
