"""Attention spelt out step by step, in any float dtype: in float64 it is the oracle that the others are held against.

    s   = q kᵀ · scale               scores, −∞ where the query may not see the key
    m   = max over the keys of s     so that no exponential overflows
    p   = exp(s − m)
    l   = sum over the keys of p
    o   = p v / l
    lse = m + log l                  the logarithm of the sum of exponentials: all that a backward pass must remember

A row that sees no key has l = 0. It gets o = 0 and lse = −∞, and passes no gradient on.
"""

import torch
from torch import Tensor

from stepbench.kernels.contract import (
    UP_TO_DOUBLE,
    Answer,
    Case,
    Implementation,
    by_dtype_alone,
    visible_keys,
    wrong_dtype,
)


def attention(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, return_lse: bool) -> Answer:
    """Compute attention and the logsumexp of its scores. For the contract see `api.attention`.

    Can be differentiated any number of times. Inside `torch.autocast` it computes as outside.
    """
    with by_dtype_alone(q.device):
        return _attention(q, k, v, is_causal=is_causal, scale=scale, return_lse=return_lse)


def _attention(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, return_lse: bool) -> Answer:
    q = q.unflatten(1, (k.shape[1], -1))  # [B, Hkv, H / Hkv, Tq, D]: the heads that share a key head stand together
    k, v = k.unsqueeze(2), v.unsqueeze(2)
    s = q @ k.transpose(-2, -1) * scale
    if is_causal:
        s = s.masked_fill(~visible_keys(q.shape[-2], k.shape[-2], q.device), -torch.inf)
    m = s.detach().amax(dim=-1, keepdim=True)
    m = m.masked_fill(m == -torch.inf, 0.0)
    p = torch.exp(s - m)
    l = p.sum(dim=-1, keepdim=True)  # noqa: E741 - the paper's letter
    blind = l == 0
    safe_l = l.masked_fill(blind, 1.0)  # log and 1/l of 0 would put NaN into the gradient, masked or not
    o = (p @ v / safe_l).flatten(1, 2)
    if not return_lse:
        return o
    lse = (m + safe_l.log()).masked_fill(blind, -torch.inf).squeeze(-1).flatten(1, 2)
    return o, lse.to(torch.promote_types(q.dtype, torch.float32))


def unsupported(case: Case) -> str | None:
    """Tell why a case cannot run: nothing but the dtype can be wrong."""
    return wrong_dtype("reference", case, UP_TO_DOUBLE)


IMPLEMENTATION = Implementation(attention, unsupported)
