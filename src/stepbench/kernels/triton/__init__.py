"""FlashAttention-2 as Triton kernels, forward and backward.

    primitives   tiles: find, load, multiply, store           tiles, tiles.json   which tile shape for which device
    forward      the fused forward kernel                     tune                measures shapes, rewrites the table
    backward     row statistics, two passes, or one           resources           registers and instructions, without
    a GPU launch       grids, descriptors, buffers operator     the torch operator and its gradient

This file imports none of them, so that asking whether Triton can run needs no Triton.
"""

import importlib.util

import torch
from torch import Tensor

from stepbench import versions
from stepbench.kernels.contract import UP_TO_SINGLE, Answer, Case, Implementation, needs_cuda, wrong_dtype
from stepbench.kernels.triton.tiles import MAX_FUSED_HEAD_DIM


def unsupported(case: Case) -> str | None:
    """Tell why a case cannot run: Triton, and a device of compute capability 8.0 or newer."""
    if reason := needs_cuda("triton", case):
        return reason
    if importlib.util.find_spec("triton") is None:
        return "triton needs the triton package, got none"
    if versions.triton_interprets():
        return "triton needs compiled kernels, got TRITON_INTERPRET in the environment"
    if (capability := torch.cuda.get_device_capability(case.device)) < (8, 0):
        return f"triton needs compute capability 8.0 or newer, got {capability[0]}.{capability[1]}"
    return wrong_dtype("triton", case, UP_TO_SINGLE)


def _unsupported_with_atomics(case: Case) -> str | None:
    if case.dtype != torch.float32 and case.head_dim > MAX_FUSED_HEAD_DIM:
        return f"triton_atomics needs a head dim of at most {MAX_FUSED_HEAD_DIM}, got {case.head_dim}"
    return unsupported(case)


def _two_passes(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, return_lse: bool) -> Answer:
    from stepbench.kernels.triton import operator

    return operator.attention(q, k, v, is_causal=is_causal, scale=scale, return_lse=return_lse)


def _atomics(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, return_lse: bool) -> Answer:
    from stepbench.kernels.triton import operator

    return operator.attention(q, k, v, is_causal=is_causal, scale=scale, return_lse=return_lse, atomics=True)


TWO_PASSES = Implementation(_two_passes, unsupported)
ATOMICS = Implementation(_atomics, _unsupported_with_atomics)
