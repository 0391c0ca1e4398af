"""The decoder language model that the experiments train.

Token embedding, pre-norm blocks that add to the residual stream, a final norm and a head. The plain one, of which a
size of config.yaml gives the shape, is LLaMA: RMSNorm, causal attention with rotary positions, SwiGLU, no biases, an
untied head. With the same weights transformers' LlamaForCausalLM gives the same logits, as its Qwen3ForCausalLM and
GPT2LMHeadModel do for the other architectures. No dropout. For shape suffixes see `layers.py`.

Source: Touvron et al. 2023, LLaMA (arXiv:2302.13971), section 2.2; Radford et al. 2019, Language Models are
Unsupervised Multitask Learners, section 2.3, for GPT-2; Yang et al. 2025, Qwen3 (arXiv:2505.09388), section 2, for the
norm of queries and keys.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepbench.models.architecture import GPT2, Architecture
from stepbench.models.layers import (
    Attention,
    Head,
    Loss,
    Made,
    MultiHeadAttention,
    Projection,
    SelfAttention,
    SwiGLU,
    TokenEmbedding,
    rotary_angles,
    rotate,
)
from stepbench.models.sizes import ModelSize


class NormedSelfAttention(SelfAttention):
    """Self-attention whose queries and keys pass an RMSNorm over each head before they are rotated."""

    def __init__(self, shape: Architecture, *, attention: Attention, **made: Unpack[Made]) -> None:
        super().__init__(**_attention_arguments(shape), attention=attention, **made)
        self.query_norm = nn.RMSNorm(shape.head_dim, eps=shape.eps, **made)
        self.key_norm = nn.RMSNorm(shape.head_dim, eps=shape.eps, **made)

    def forward(self, x_BTC: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        """Return `[B, T, C]` from `[B, T, C]` and the angles `[T, E]` of `rotary_angles`."""
        q_BHTD = rotate(self.query_norm(self.split_heads(self.query(x_BTC))), cos_TE, sin_TE)
        k_BKTD = rotate(self.key_norm(self.split_heads(self.key(x_BTC))), cos_TE, sin_TE)
        return self.mix(q_BHTD, k_BKTD, self.split_heads(self.value(x_BTC)))


class Block(nn.Module):
    """One pre-norm block: x + attention(norm(x)), then x + feed_forward(norm(x)).

    Source: Zhang and Sennrich 2019, RMSNorm (arXiv:1910.07467), equation 4.
    """

    def __init__(self, size: ModelSize, *, attention: Attention, **made: Unpack[Made]) -> None:
        super().__init__()
        shape = Architecture.of(size)
        self.attention_norm = nn.RMSNorm(shape.d_model, eps=shape.eps, **made)
        self.attention = (
            NormedSelfAttention(shape, attention=attention, **made)
            if shape.qk_norm
            else SelfAttention(**_attention_arguments(shape), attention=attention, **made)
        )
        self.feed_forward_norm = nn.RMSNorm(shape.d_model, eps=shape.eps, **made)
        self.feed_forward = SwiGLU(shape.d_model, shape.d_ff, **made)

    def forward(self, x_BTC: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        """Return `[B, T, C]` from `[B, T, C]` and the angles `[T, E]`.

        The angles are arguments instead of state, so that a block can be checkpointed or wrapped by itself.
        """
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), cos_TE, sin_TE)
        return x_BTC + self.feed_forward(self.feed_forward_norm(x_BTC))


class CausalAttention(MultiHeadAttention):
    """Multi-head self-attention without rotary positions; no token attends to a later one."""

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return `[B, T, C]` from `[B, T, C]`."""
        return self.mix(*(self.split_heads(each(x_BTC)) for each in (self.query, self.key, self.value)))


class GPT2Block(nn.Module):
    """One pre-norm block of GPT-2: LayerNorm, biases, and a feed-forward of two matrices with GELU by its tanh formula.

    Source: Radford et al. 2019; Hendrycks and Gimpel 2016, GELU (arXiv:1606.08415).
    """

    def __init__(self, shape: Architecture, *, attention: Attention, **made: Unpack[Made]) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.d_model, eps=shape.eps, **made)
        self.attention = CausalAttention(
            shape.d_model, shape.heads, attention=attention, is_causal=True, bias=True, **made
        )
        self.feed_forward_norm = nn.LayerNorm(shape.d_model, eps=shape.eps, **made)
        self.up = Projection(shape.d_model, shape.d_ff, bias=True, **made)
        self.down = Projection(shape.d_ff, shape.d_model, bias=True, **made)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return `[B, T, C]` from `[B, T, C]`."""
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC))
        return x_BTC + self.down(F.gelu(self.up(self.feed_forward_norm(x_BTC)), approximate="tanh"))


class Decoder(nn.Module):
    """A decoder language model: int64 tokens `[B, T]` to logits `[B, T, V]`, or to their loss where there are targets.

    Weights are normal with standard deviation 0.02, norms are one and biases zero; seed torch before the call for
    reproducible weights. There are no buffers.

    Args:
        size: Widths, depth and heads; a plain size is LLaMA.
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
        shape = self.size = Architecture.of(size)
        self.embedding = TokenEmbedding(vocabulary, shape.d_model, **made)
        if shape.architecture == GPT2:
            self.positions = TokenEmbedding(shape.positions, shape.d_model, **made)
            self.blocks = nn.ModuleList(GPT2Block(shape, attention=attention, **made) for _ in range(shape.layers))
            self.norm: nn.Module = nn.LayerNorm(shape.d_model, eps=shape.eps, **made)
        else:
            self.blocks = nn.ModuleList(Block(shape, attention=attention, **made) for _ in range(shape.layers))
            self.norm = nn.RMSNorm(shape.d_model, eps=shape.eps, **made)
        if shape.tied:
            # On `meta`, or the second matrix would be drawn for nothing.
            self.head = Head(shape.d_model, vocabulary, loss=loss, dtype=made.get("dtype"), device="meta")
            self.head.weight = self.embedding.weight
        else:
            self.head = Head(shape.d_model, vocabulary, loss=loss, **made)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        """Return the logits `[B, T, V]` of the token after each position; with targets, the mean cross-entropy in nats.

        Logits have the parameters' dtype, or the autocast dtype under autocast; `next_token_loss` accepts both. The
        loss is the head's, which need not make all logits; a target of -100 counts for nothing.
        """
        x_BTC = self.embedding(tokens_BT)
        angles: tuple[Tensor, ...] = ()
        if self.size.architecture == GPT2:
            x_BTC = x_BTC + self.positions(torch.arange(tokens_BT.shape[1], device=tokens_BT.device))
        else:
            angles = rotary_angles(x_BTC, self.size.head_dim, self.size.rope_base, self.size.rope_scaling)
        for block in self.blocks:
            x_BTC = block(x_BTC, *angles)
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


def _attention_arguments(shape: Architecture) -> dict[str, Any]:
    return {
        "d_model": shape.d_model,
        "heads": shape.heads,
        "key_heads": shape.key_heads,
        "head_dim": shape.head_dim,
        "is_causal": True,
    }
