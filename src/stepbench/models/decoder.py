"""The decoder language model that the experiments train.

Token embedding, blocks of RMSNorm, causal attention with rotary positions, RMSNorm and SwiGLU, each pair added to the
residual stream, a final RMSNorm and an untied head; no biases, no dropout. It is LLaMA's architecture:
transformers' LlamaForCausalLM gives the same logits with the same weights. For shape suffixes see `layers.py`.

Source: Touvron et al. 2023, LLaMA (arXiv:2302.13971), section 2.2.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepbench.models.layers import (
    EPS,
    Attention,
    Head,
    Loss,
    Made,
    SelfAttention,
    SwiGLU,
    TokenEmbedding,
    rotary_angles,
)
from stepbench.models.sizes import ModelSize


class Block(nn.Module):
    """One pre-norm block: x + attention(norm(x)), then x + feed_forward(norm(x)).

    Source: Zhang and Sennrich 2019, RMSNorm (arXiv:1910.07467), equation 4.
    """

    def __init__(self, size: ModelSize, *, attention: Attention, **made: Unpack[Made]) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(size.d_model, eps=EPS, **made)
        self.attention = SelfAttention(size.d_model, size.heads, attention=attention, is_causal=True, **made)
        self.feed_forward_norm = nn.RMSNorm(size.d_model, eps=EPS, **made)
        self.feed_forward = SwiGLU(size.d_model, size.d_ff, **made)

    def forward(self, x_BTC: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        """Return `[B, T, C]` from `[B, T, C]` and the angles `[T, E]`.

        The angles are arguments instead of state, so that a block can be checkpointed or wrapped by itself.
        """
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), cos_TE, sin_TE)
        return x_BTC + self.feed_forward(self.feed_forward_norm(x_BTC))


class Decoder(nn.Module):
    """A decoder language model: int64 tokens `[B, T]` to logits `[B, T, V]`, or to their loss where there are targets.

    Weights are normal with standard deviation 0.02 and norms are one; seed torch before the call for reproducible
    weights. There are no buffers.

    Args:
        size: Widths, depth and heads.
        vocabulary: V, the number of token ids.
        attention: `attention(q, k, v, *, is_causal)` over `[B, H, T, D]`, from `stepbench.kernels`.
        loss: Head and loss in one, from `stepbench.kernels.heads`; None for a model that returns logits alone.
        **made: The parameters' dtype and device; `meta` creates shapes only.
    """

    def __init__(
        self,
        size: ModelSize,
        *,
        vocabulary: int,
        attention: Attention,
        loss: Loss | None = None,
        **made: Unpack[Made],
    ) -> None:
        super().__init__()
        self.size = size
        self.embedding = TokenEmbedding(vocabulary, size.d_model, **made)
        self.blocks = nn.ModuleList(Block(size, attention=attention, **made) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.d_model, eps=EPS, **made)
        self.head = Head(size.d_model, vocabulary, loss=loss, **made)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        """Return the logits `[B, T, V]` of the token after each position; with targets, the mean cross-entropy in nats.

        Logits have the parameters' dtype, or the autocast dtype under autocast; `next_token_loss` accepts both. The
        loss is the head's, which need not make all logits; a target of -100 counts for nothing.
        """
        x_BTC = self.embedding(tokens_BT)
        cos_TE, sin_TE = rotary_angles(x_BTC, self.size.head_dim)
        for block in self.blocks:
            x_BTC = block(x_BTC, cos_TE, sin_TE)
        return self.head(self.norm(x_BTC), targets_BT)


def next_token_loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats, a scalar in float32, or in float64 for float64 logits.

    The cast is explicit because bfloat16 has steps of 1/16 near ln 10 000 = 9.2, where training starts, and because
    autocast promotes different operations on different devices.

    Args:
        logits_BTV: Any float dtype, `[B, T, V]`.
        targets_BT: int64 `[B, T]`, the token after each position.
    """
    logits_BTV = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
