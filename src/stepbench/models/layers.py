"""The parts of a decoder block, as plain torch modules.

A tensor's name ends in its shape:

    B  batch        C  d_model      H  heads        K  heads of keys and values
    T  context      F  d_ff         D  head_dim     E  head_dim / 2, the pairs that rotary positions rotate
    V  vocabulary

Every module is created in its dtype on its device and initialised there only by `normal_`, so that the same code runs
on the meta device and under FakeTensorMode, where no value can be read.
"""

from __future__ import annotations

import math
from typing import Protocol, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepbench.models.architecture import ROPE_BASE, RopeScaling

INITIAL_STD = 0.02


class Made(TypedDict, total=False):
    """How parameters are created; torch's defaults where it is left out. The device `meta` creates shapes only."""

    dtype: torch.dtype | None
    device: torch.device | str | None


class Attention(Protocol):
    """An attention operation over heads, as `stepbench.kernels` provides them."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
        """Attend; q and the result are `[B, H, T, D]`, k and v `[B, K, T, D]`, of one dtype; scores scaled by 1/√D."""
        ...


class Projection(nn.Linear):
    """Multiply by a matrix: `[..., inputs]` to `[..., outputs]`; no bias unless one is asked for, which starts at zero.

    It overrides nn.Linear's initialisation, which would be drawn and then overwritten: tens of seconds for the 2.7B
    size on a CPU.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False, **made: Unpack[Made]) -> None:
        super().__init__(inputs, outputs, bias=bias, **made)

    def reset_parameters(self) -> None:
        """Draw the weights from a normal distribution; mutates them in place."""
        nn.init.normal_(self.weight, std=INITIAL_STD)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Loss(Protocol):
    """Head and loss in one, as `stepbench.kernels.heads` provides them."""

    def __call__(self, x: Tensor, weight: Tensor, targets: Tensor, /) -> Tensor:
        """Return the mean cross-entropy, from hidden states `[B, T, C]`, the weight `[V, C]` and targets `[B, T]`."""
        ...


class Head(Projection):
    """The projection to the vocabulary: logits, or their loss where there are targets."""

    def __init__(self, d_model: int, vocabulary: int, *, loss: Loss | None, **made: Unpack[Made]) -> None:
        super().__init__(d_model, vocabulary, **made)
        self.loss = loss

    def forward(self, x_BTC: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        """Return the logits `[B, T, V]`, or with targets the mean cross-entropy in nats, a scalar.

        Raises:
            TypeError: there are targets, and the head was created without a loss.
        """
        if targets_BT is None:
            return super().forward(x_BTC)
        if self.loss is None:
            raise TypeError("a head must be created with a `loss` to take targets, got none")
        return self.loss(x_BTC, self.weight, targets_BT)


class TokenEmbedding(nn.Embedding):
    """Look up one row for each token: int64 `[B, T]` to `[B, T, C]`."""

    def reset_parameters(self) -> None:
        """Draw the weights from a normal distribution; mutates them in place."""
        nn.init.normal_(self.weight, std=INITIAL_STD)


def rotary_angles(
    x_BTC: Tensor, head_dim: int, base: float = ROPE_BASE, scaling: RopeScaling | None = None
) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of position · base^(-2i / head_dim), each `[T, E]`, pair i in column i.

    Each forward pass computes them once for all blocks. If they were buffers, a later `.to(bfloat16)` would round them,
    which moves position 1000 by up to two radians, and DistributedDataParallel would broadcast them at every step.

    Args:
        x_BTC: The tokens' vectors, whose number T and device count. The angles are in float32, or in float64 where
            these are; lower precision cannot distinguish neighbouring positions.
        head_dim: D, even.
        base: The base of the frequencies.
        scaling: Of long wavelengths, or None.

    Source: Su et al. 2021, RoFormer (arXiv:2104.09864), section 3.2.2, equation 15.
    """
    dtype, device = torch.promote_types(x_BTC.dtype, torch.float32), x_BTC.device
    positions_T = torch.arange(x_BTC.shape[1], dtype=dtype, device=device)
    exponents_E = torch.arange(0, head_dim, 2, dtype=dtype, device=device) / head_dim
    frequencies_E = base**-exponents_E
    if scaling is not None:
        frequencies_E = _scaled(frequencies_E, scaling)
    angles_TE = positions_T[:, None] * frequencies_E
    return angles_TE.cos(), angles_TE.sin()


def _scaled(frequencies_E: Tensor, scaling: RopeScaling) -> Tensor:
    """Return the frequencies with long wavelengths stretched; see `RopeScaling`."""
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    turns_E = scaling.original_context * frequencies_E / (2 * math.pi)  # within the original context
    share_E = ((turns_E - low) / (high - low)).clamp(0, 1)  # 1 is left alone
    return share_E * frequencies_E + (1 - share_E) * frequencies_E / scaling.factor


def rotate(x_BHTD: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
    """Rotate each pair of a query or key by its position's angle; `[B, H, T, D]` in and out, same dtype.

    Pair i is (x[i], x[i + D/2]), the half-split convention of LLaMA's released weights in transformers. RoFormer pairs
    neighbours, which is the same up to a fixed permutation of the columns of the query and key matrices.
    The rotation is computed in the angles' precision.
    """
    first_BHTE, second_BHTE = x_BHTD.chunk(2, dim=-1)
    turned_BHTD = torch.cat(
        (first_BHTE * cos_TE - second_BHTE * sin_TE, second_BHTE * cos_TE + first_BHTE * sin_TE), dim=-1
    )
    return turned_BHTD.to(x_BHTD.dtype)


class MultiHeadAttention(nn.Module):
    """The four projections of multi-head attention; subclasses define where queries, keys and values come from.

    Args:
        d_model: C.
        heads: H.
        attention: The operation over heads.
        is_causal: Whether no token attends to a later one.
        key_heads: K, the heads of keys and values, which divides H; 0 for H.
        head_dim: D; 0 for C / H.
        bias: Whether the projections have biases.
        **made: The parameters' dtype and device.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.2; Ainslie et al. 2023, GQA (arXiv:2305.13245), for
    key heads.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        *,
        attention: Attention,
        is_causal: bool = False,
        key_heads: int = 0,
        head_dim: int = 0,
        bias: bool = False,
        **made: Unpack[Made],
    ) -> None:
        super().__init__()
        self.head_dim = head_dim or d_model // heads
        self.attention = attention
        self.is_causal = is_causal
        inner, key_inner = heads * self.head_dim, (key_heads or heads) * self.head_dim
        self.query = Projection(d_model, inner, bias=bias, **made)
        self.key = Projection(d_model, key_inner, bias=bias, **made)
        self.value = Projection(d_model, key_inner, bias=bias, **made)
        self.output = Projection(inner, d_model, bias=bias, **made)

    def split_heads(self, x_BTC: Tensor) -> Tensor:
        """Return `[B, H, T, D]` from `[B, T, H·D]`."""
        return x_BTC.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def mix(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor) -> Tensor:
        """Return `[B, T, C]` from queries `[B, H, T, D]` and keys and values `[B, K, S, D]`."""
        o_BHTD = self.attention(q_BHTD, k_BKSD, v_BKSD, is_causal=self.is_causal)
        return self.output(o_BHTD.transpose(1, 2).flatten(2))


class SelfAttention(MultiHeadAttention):
    """Multi-head self-attention with rotary positions (`rotate`); if causal, no token attends to a later one."""

    def forward(self, x_BTC: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        """Return `[B, T, C]` from `[B, T, C]` and the angles `[T, E]` of `rotary_angles`."""
        q_BHTD = rotate(self.split_heads(self.query(x_BTC)), cos_TE, sin_TE)
        k_BKTD = rotate(self.split_heads(self.key(x_BTC)), cos_TE, sin_TE)
        return self.mix(q_BHTD, k_BKTD, self.split_heads(self.value(x_BTC)))


class SwiGLU(nn.Module):
    """Feed-forward block of three matrices: down(silu(gate(x)) · up(x)).

    Source: Shazeer 2020, GLU Variants Improve Transformer (arXiv:2002.05202), equation 6.
    """

    def __init__(self, d_model: int, d_ff: int, **made: Unpack[Made]) -> None:
        super().__init__()
        self.gate = Projection(d_model, d_ff, **made)
        self.up = Projection(d_model, d_ff, **made)
        self.down = Projection(d_ff, d_model, **made)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return `[B, T, C]` from `[B, T, C]`; two intermediate tensors are `[B, T, F]`."""
        return self.down(F.silu(self.gate(x_BTC)) * self.up(x_BTC))
