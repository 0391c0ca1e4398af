"""Attention as everyone writes it first: three lines, and two matrices of size Tq × Tk in memory.

At a context of 16 384 the scores of one head take 512 MiB in bfloat16, the probabilities as much again, and both are
kept for the backward pass. Everything runs in the inputs' dtype.
"""

import torch
from torch import Tensor

from stepbench.kernels.contract import UP_TO_DOUBLE, Answer, Case, Implementation, visible_keys, wrong_dtype


def attention(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, return_lse: bool) -> Answer:
    """Compute softmax(q kᵀ · scale) v with the whole score matrix in memory. For the contract see `api.attention`."""
    if (group := q.shape[1] // k.shape[1]) > 1:  # with 1 it would be a copy of both
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = q @ k.transpose(-2, -1) * scale
    if is_causal:
        visible = visible_keys(q.shape[-2], k.shape[-2], q.device)
        scores = scores.masked_fill(~visible, -torch.inf)
    probabilities = scores.softmax(dim=-1)
    if is_causal and q.shape[-2] > k.shape[-2]:
        # The softmax of a row without keys is 0 / 0.
        probabilities = probabilities.masked_fill(~visible.any(dim=-1, keepdim=True), 0.0)
    o = probabilities @ v
    if not return_lse:
        return o
    return o, scores.to(torch.promote_types(q.dtype, torch.float32)).logsumexp(dim=-1)


def unsupported(case: Case) -> str | None:
    """Tell why a case cannot run: nothing but the dtype can be wrong."""
    return wrong_dtype("naive", case, UP_TO_DOUBLE)


IMPLEMENTATION = Implementation(attention, unsupported)
