"""Naive attention with a named range around each of its parts, so that a profiler can distinguish them.

It computes the same as `stepbench.kernels.naive` in the same order; a test compares the two. The kernels themselves
have no ranges, because entering one costs a microsecond, which other measurements must not include.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.profiler import record_function

SCORES, SOFTMAX, VALUES = PARTS = ("scores", "softmax", "values")
MARK = "stepbench attention: "


def ranged_attention(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
    """Return attention over q `[B, H, T, D]` and k, v `[B, K, T, D]`, as q; scores are scaled by 1/√D."""
    if (shared := q.shape[1] // k.shape[1]) > 1:
        k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
    with record_function(f"{MARK}{SCORES}"):
        scores_BHTT = q @ k.transpose(-2, -1) * (1 / math.sqrt(q.shape[-1]))
        if is_causal:
            positions_T = torch.arange(q.shape[-2], device=q.device)
            scores_BHTT = scores_BHTT.masked_fill(~(positions_T[None, :] <= positions_T[:, None]), -torch.inf)
    with record_function(f"{MARK}{SOFTMAX}"):
        probabilities_BHTT = scores_BHTT.softmax(dim=-1)
    with record_function(f"{MARK}{VALUES}"):
        return probabilities_BHTT @ v
