"""What layouts the kernels read: tensors of others are copied, and padded where their head dim is no multiple of 16."""

import torch
from torch import Tensor
from torch.nn import functional

from stepbench.kernels.triton.tiles import MOST_ROWS, Plan

ALIGNMENT = 16  # elements: what Triton asks of a stride before it loads several elements at a time


def padded(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors [..., D] with zeros behind, so that D is a multiple of 16; the same ones if it is already.

    Zeros add nothing to a product. Rows of another length would be loaded one element at a time, and spill by the
    hundred bytes, or forbid descriptors.
    """
    missing = -tensors[0].shape[-1] % ALIGNMENT
    return tuple(functional.pad(x, (0, missing)) for x in tensors) if missing else tensors


def without_padding(y: Tensor, x: Tensor) -> Tensor:
    """Return y without the columns that `padded` put behind x's, laid out like x; y itself if there are none."""
    return y if y.shape == x.shape else empty_like_rows(x).copy_(y[..., : x.shape[-1]])


def empty_like_rows(x: Tensor) -> Tensor:
    """Return an uninitialised tensor laid out like x, or contiguous where the kernels could not write that in place."""
    y = torch.empty_like(x)
    return y if _has_dense_rows(y) else torch.empty(x.shape, dtype=x.dtype, device=x.device)


def readable(plan: Plan, *tensors: Tensor) -> tuple[bool, tuple[Tensor, ...]]:
    """Return whether descriptors are used, and the tensors, copied where the kernels could not read them in place.

    Both need neighbours along the head dim to be neighbours in memory, and aligned rows: descriptors on 16 bytes;
    pointers on 16 elements, which Triton asks before it loads several at a time. With pointers a tile must span less
    than 2³¹ elements as well.

    Args:
        plan: says whether there are descriptors.
        *tensors: [B, H, T, D] of one dtype, D a multiple of 16.
    """
    descriptors = plan.descriptors and tensors[0].dtype != torch.float32
    fits = _fits_descriptor if descriptors else _fits_pointers
    return descriptors, tuple(x if fits(x) else x.clone(memory_format=torch.contiguous_format) for x in tensors)


def _has_dense_rows(x: Tensor) -> bool:
    # Within a tile the kernels for 16 bits count in 32 bits; counting in 64 would cost all launches registers.
    return x.stride(-1) == 1 and MOST_ROWS * x.stride(-2) < 2**31


def _fits_pointers(x: Tensor) -> bool:
    # Other strides are another variant of the kernel, which loads one element at a time, and spills.
    return _has_dense_rows(x) and x.data_ptr() % 16 == 0 and all(stride % ALIGNMENT == 0 for stride in x.stride()[:-1])


def _fits_descriptor(x: Tensor) -> bool:
    steps = [stride * x.element_size() for stride, size in zip(x.stride()[:-1], x.shape[:-1], strict=True) if size > 1]
    return x.stride(-1) == 1 and x.data_ptr() % 16 == 0 and all(step > 0 and step % 16 == 0 for step in steps)
