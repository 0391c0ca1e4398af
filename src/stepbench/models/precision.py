"""The precisions of a training step, and which of them a device supports.

`fp32` computes in float32, `tf32` in float32 with matrix products in TF32. `bf16` and `fp16` use autocast for the
forward pass and the loss, with parameters in float32.
"""

from __future__ import annotations

import torch

from stepbench import versions

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precision_reason(precision: str, device: str) -> str | None:
    """Return why `device` does not support `precision`, or None if it does.

    Args:
        precision: one of `PRECISIONS`.
        device: `cuda`, `mps` or `cpu`.
    """
    if precision == "tf32":
        if device != "cuda":
            return f"tf32 needs a CUDA device of compute capability 8.0 or later, got {device}"
        if torch.cuda.get_device_capability() < (8, 0):
            return f"tf32 needs compute capability 8.0 or later, got {torch.cuda.get_device_capability()}"
    if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return f"bf16 needs a CUDA device that computes in it, got {torch.cuda.get_device_name()}"
    return None


def set_precision(precision: str) -> None:
    """Compute float32 matrix products in TF32 for `tf32`, otherwise in float32; this affects the whole process."""
    versions.set_float32_products(tf32=precision == "tf32")
