"""FlashAttention-2 in plain PyTorch: the algorithm, to be read. The Triton kernels do the same, faster.

The idea. Attention needs whole rows of the score matrix S = q kᵀ · scale, because a softmax divides by its row's sum.
But a row can be taken tile by tile if what was summed before is corrected whenever a larger score turns up:

    m_new = max(m, max S_ij)                     the row's maximum so far
    P_ij  = exp(S_ij − m_new)                    exponentials against that maximum
    l     = exp(m − m_new) · l + sum P_ij        what was summed against the old maximum shrinks by exp(m − m_new)
    O     = exp(m − m_new) · O + P_ij V_j

At the end O / l is the answer. Only tiles of S ever exist. For the backward pass one number per row is kept, the
logsumexp L = m + log l, since exp(S_ij − L) is the softmax itself: P is computed a second time instead of being
stored.

Letters, as in the paper: tiles Q_i of B_r rows, tiles K_j and V_j of B_c rows, L_i logsumexp, D_i = rowsum(dO_i ∘
O_i). Tensors here carry the batch and the heads in front, [B, Hkv, H / Hkv, T, D], so that one tile is taken for all
heads at once.

Source: Dao, FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning (2023), algorithms 1 and
2. The gradients are those of FlashAttention (Dao et al., 2022), appendix B.2.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from stepbench.kernels.contract import (
    UP_TO_DOUBLE,
    Answer,
    Case,
    Implementation,
    NoSecondDerivative,
    by_dtype_alone,
    wrong_dtype,
)

B_R = 128
B_C = 128


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, return_lse: bool, b_r: int = B_R, b_c: int = B_C
) -> Answer:
    """Compute attention tile by tile; nothing of size Tq × Tk is ever kept. For the contract see `api.attention`.

    Sums run in float32 for 16-bit inputs, as they do in a tensor core, inside `torch.autocast` too. The gradients have
    no gradients. A tile of queries has `b_r` rows, one of keys and values `b_c`.
    """
    o, lse = _Attention.apply(q, k, v, is_causal, scale, b_r, b_c)
    return (o, lse) if return_lse else o


class _Attention(torch.autograd.Function):
    """Saves q, k, v, o and the logsumexp, and nothing else."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, is_causal: bool, scale: float, b_r: int, b_c: int
    ) -> tuple[Tensor, Tensor]:
        with by_dtype_alone(q.device):
            o, lse = forward(q, k, v, is_causal, scale, b_r, b_c)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.set_materialize_grads(False)
        ctx.options = is_causal, scale, b_r, b_c
        return o, lse

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        do, dlse = gradients
        return *_Gradient.apply(do, dlse, *ctx.saved_tensors, *ctx.options), None, None, None, None


class _Gradient(torch.autograd.Function):
    """The backward pass as a function of its own, so that differentiating it again ends in a clear error."""

    @staticmethod
    def forward(ctx: FunctionCtx, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        with by_dtype_alone(arguments[2].device):
            return backward(*arguments)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> None:
        raise NoSecondDerivative("tiled")


def forward(
    q: Tensor, k: Tensor, v: Tensor, is_causal: bool, scale: float, b_r: int, b_c: int
) -> tuple[Tensor, Tensor]:
    """Return o [B, H, Tq, D] and the logsumexp [B, H, Tq] (algorithm 1)."""
    o = torch.empty_like(q)
    lse = q.new_empty(q.shape[:-1], dtype=sum_dtype(q))
    Q, O, L = (x.unflatten(1, (k.shape[1], -1)) for x in (q, o, lse))  # noqa: E741
    K, V = k[:, :, None], v[:, :, None]
    for i in tiles(q.shape[2], b_r):  # line 3
        Q_i = in_sum_dtype(Q, i)
        m_i = Q_i.new_full(Q_i.shape[:-1], -torch.inf)  # line 5
        l_i = Q_i.new_zeros(Q_i.shape[:-1])
        O_i = torch.zeros_like(Q_i)
        for j in tiles_seen(i, q.shape[2], k.shape[2], b_c, is_causal):  # line 6
            S_ij = masked(Q_i @ in_sum_dtype(K, j).mT * scale, i, j, q.shape[2], k.shape[2], is_causal)  # line 8
            m_new = torch.maximum(m_i, S_ij.amax(dim=-1))  # line 9
            shift = m_new.masked_fill(m_new == -torch.inf, 0.0)  # a row that has seen no key yet: not −∞ − (−∞)
            P_ij = torch.exp(S_ij - shift[..., None])
            alpha = torch.exp(m_i - shift)
            l_i = alpha * l_i + P_ij.sum(dim=-1)
            O_i = alpha[..., None] * O_i + P_ij @ in_sum_dtype(V, j)  # line 10
            m_i = m_new
        blind = l_i == 0
        O[..., i, :] = O_i / l_i.masked_fill(blind, 1.0)[..., None]  # line 12
        L[..., i] = torch.where(blind, -torch.inf, m_i + l_i.log())  # line 13
    return o, lse


def backward(
    do: Tensor | None, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor,
    is_causal: bool, scale: float, b_r: int, b_c: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return dq, dk, dv (algorithm 2).

    The gradients `do` of o and `dlse` of the logsumexp are None where they are zeros. Since d lse / dS = P, the latter
    only adds to −D.
    """
    do = torch.zeros_like(o) if do is None else do
    D = (do.to(lse.dtype) * o.to(lse.dtype)).sum(dim=-1)  # line 4
    if dlse is not None:
        D = D - dlse.masked_fill(lse == -torch.inf, 0.0)
    L = lse.masked_fill(lse == -torch.inf, torch.inf)  # exp(S − L) = 0 in rows that see no key
    Q, dO, L, D = (x.unflatten(1, (k.shape[1], -1)) for x in (q, do, L, D))
    K, V = k[:, :, None], v[:, :, None]
    dQ = torch.zeros_like(Q, dtype=lse.dtype)
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    for j in tiles(k.shape[2], b_c):  # line 6
        K_j, V_j = in_sum_dtype(K, j), in_sum_dtype(V, j)
        dK_j, dV_j = torch.zeros_like(K_j), torch.zeros_like(V_j)  # line 8
        for i in tiles_seeing(j, q.shape[2], k.shape[2], b_r, is_causal):  # line 9
            Q_i, dO_i = in_sum_dtype(Q, i), in_sum_dtype(dO, i)
            S_ij = masked(Q_i @ K_j.mT * scale, i, j, q.shape[2], k.shape[2], is_causal)  # line 11
            P_ij = torch.exp(S_ij - L[..., i, None])  # line 12
            dV_j += (P_ij.mT @ dO_i).sum(dim=2, keepdim=True)  # line 13; summed over the heads that share this one
            dP_ij = dO_i @ V_j.mT  # line 14
            dS_ij = P_ij * (dP_ij - D[..., i, None])  # line 15
            dQ[..., i, :] += dS_ij @ K_j * scale  # line 16
            dK_j += (dS_ij.mT @ Q_i * scale).sum(dim=2, keepdim=True)  # line 17
        dk[:, :, j], dv[:, :, j] = dK_j.squeeze(2), dV_j.squeeze(2)  # line 19
    return dQ.flatten(1, 2).to(q.dtype), dk, dv


def tiles(length: int, size: int) -> Iterator[slice]:
    """Cut [0, length) into slices of `size`; the last may be shorter."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def tiles_seen(i: slice, q_len: int, k_len: int, b_c: int, is_causal: bool) -> Iterator[slice]:
    """Return the tiles of keys that some query of tile i sees: the last query of the tile sees most."""
    return tiles(max(i.stop + k_len - q_len, 0) if is_causal else k_len, b_c)


def tiles_seeing(j: slice, q_len: int, k_len: int, b_r: int, is_causal: bool) -> Iterator[slice]:
    """Return the tiles of queries that see some key of tile j, from the one that sees the tile's first key."""
    first = max(j.start - (k_len - q_len), 0) if is_causal else 0
    return (i for i in tiles(q_len, b_r) if i.stop > first)


def masked(S_ij: Tensor, i: slice, j: slice, q_len: int, k_len: int, is_causal: bool) -> Tensor:
    """Set to −∞ the scores that the causal mask hides; only tiles on the diagonal have any."""
    if not is_causal or j.stop - 1 <= i.start + k_len - q_len:
        return S_ij
    rows = torch.arange(i.start, i.stop, device=S_ij.device)[:, None]
    columns = torch.arange(j.start, j.stop, device=S_ij.device)[None, :]
    return S_ij.masked_fill(columns > rows + (k_len - q_len), -torch.inf)


def sum_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that sums run in."""
    return torch.promote_types(x.dtype, torch.float32)


def in_sum_dtype(x: Tensor, tile: slice) -> Tensor:
    """Take a tile of rows, in the dtype that sums run in."""
    return x[..., tile, :].to(sum_dtype(x))


def unsupported(case: Case) -> str | None:
    """Tell why a case cannot run: nothing but the dtype can be wrong."""
    return wrong_dtype("tiled", case, UP_TO_DOUBLE)


IMPLEMENTATION = Implementation(attention, unsupported)
