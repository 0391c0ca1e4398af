"""Head and loss by chunks as in `chunked`, with loss and gradient of a chunk's logits by one Triton kernel, in place.

The three matrix products stay with the vendor's library. A kernel that multiplies as well and never writes logits would
save their traffic, 8 bytes for each 6·C FLOPs, and would compute them once more for the gradient, a third of the FLOPs:
docs/adr/0011-head-and-loss.md has the arithmetic.
"""

import importlib.util

import torch
from torch import Tensor

from stepbench import versions
from stepbench.kernels.contract import UP_TO_SINGLE
from stepbench.kernels.heads.chunked import RANGES, by_chunks
from stepbench.kernels.heads.contract import Head, wrong_dtype


def loss(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy without all logits at once. See `contract.Head`."""
    from stepbench.kernels.heads import triton_loss as kernel  # late: not everywhere is a Triton

    return by_chunks(x, weight, targets, kernel.loss_and_gradient)


def unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
    """Tell why it cannot run: Triton, and a device of compute capability 7.5 or newer."""
    if device.type != "cuda":
        return f"the head triton needs a CUDA device, got {device.type}"
    if not torch.cuda.is_available():
        return "the head triton needs a CUDA device, got a machine without one"
    if importlib.util.find_spec("triton") is None:
        return "the head triton needs the triton package, got none"
    if versions.triton_interprets():
        return "the head triton needs compiled kernels, got TRITON_INTERPRET in the environment"
    if torch.version.hip:
        return f"the head triton needs a GPU of NVIDIA, for which its tiles are made, got ROCm {torch.version.hip}"
    needed = (8, 0) if dtype == torch.bfloat16 else (7, 5)
    if (capability := torch.cuda.get_device_capability(device)) < needed:
        return (
            f"the head triton needs compute capability {needed[0]}.{needed[1]} or newer for this dtype, "
            f"got {capability[0]}.{capability[1]}"
        )
    return wrong_dtype("triton", dtype, UP_TO_SINGLE)


HEAD = Head(loss, unsupported, RANGES)
