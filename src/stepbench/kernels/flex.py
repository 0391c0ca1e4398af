"""torch's FlexAttention: a Triton kernel that torch.compile writes around a mask given as a Python function.

The block mask, which tells the kernel the tiles it may skip, is made once per shape and kept: a measurement does not
pay for it. torch has no backward for it on a CPU, so there it is unsupported.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from stepbench.kernels.contract import UP_TO_SINGLE, Answer, Case, Implementation, needs_cuda, wrong_dtype

MIN_HEAD_DIM = 16  # torch: "embedding dimension of the query, key, and value must be at least 16"


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


@functools.lru_cache(maxsize=8)
def _block_mask(q_len: int, k_len: int, device: torch.device) -> BlockMask:
    """Return the causal mask aligned at the last key."""
    offset = k_len - q_len

    def visible(b: Tensor, h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return column <= row + offset

    return create_block_mask(visible, None, None, q_len, k_len, device=device)


def attention(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, return_lse: bool) -> Answer:
    """Compute attention with FlexAttention, compiled. For the contract see `api.attention`."""
    block_mask = _block_mask(q.shape[-2], k.shape[-2], q.device) if is_causal else None
    grouped = q.shape[1] != k.shape[1]
    if not return_lse:
        return _compiled()(q, k, v, block_mask=block_mask, scale=scale, enable_gqa=grouped)
    o, aux = _compiled()(
        q, k, v, block_mask=block_mask, scale=scale, enable_gqa=grouped, return_aux=AuxRequest(lse=True)
    )
    return o, aux.lse


def unsupported(case: Case) -> str | None:
    """Tell why a case cannot run."""
    if case.head_dim < MIN_HEAD_DIM:
        return f"flex needs a head dim of at least {MIN_HEAD_DIM}, got {case.head_dim}"
    return needs_cuda("flex", case) or wrong_dtype("flex", case, UP_TO_SINGLE)


IMPLEMENTATION = Implementation(attention, unsupported)
