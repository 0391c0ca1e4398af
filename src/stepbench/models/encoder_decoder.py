"""The encoder-decoder model that the epoch benchmark trains.

An encoder of pre-norm blocks reads the source; each decoder block attends to the target so far and then to the
encoder's output. Source and target have separate embeddings, and the head is tied to neither. RMSNorm, rotary positions
in self-attention but not in cross-attention, a feed-forward of two matrices with GELU; no biases, no dropout. For shape
suffixes see `layers.py`; S is the source's length, T the target's.

Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.1, with the norm before each part as in Xiong et al. 2020
(arXiv:2002.04745).
"""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn
from torch.nn import functional as F

from stepbench.models.architecture import EPS
from stepbench.models.layers import (
    Attention,
    Made,
    MultiHeadAttention,
    Projection,
    SelfAttention,
    TokenEmbedding,
    rotary_angles,
)
from stepbench.models.presets import Preset


class CrossAttention(MultiHeadAttention):
    """Multi-head attention from the target to the encoded source, without positions.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.3.
    """

    def forward(self, x_BTC: Tensor, encoded_BSC: Tensor) -> Tensor:
        """Return `[B, T, C]` from the target `[B, T, C]` and the encoded source `[B, S, C]`."""
        k_BHSD, v_BHSD = (self.split_heads(each(encoded_BSC)) for each in (self.key, self.value))
        return self.mix(self.split_heads(self.query(x_BTC)), k_BHSD, v_BHSD)


class FeedForward(nn.Module):
    """Feed-forward part of two matrices: down(gelu(up(x))).

    Source: Vaswani et al. 2017, section 3.3, with GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415) for ReLU.
    """

    def __init__(self, d_model: int, d_ff: int, **made: Unpack[Made]) -> None:
        super().__init__()
        self.up = Projection(d_model, d_ff, **made)
        self.down = Projection(d_ff, d_model, **made)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return `[B, T, C]` from `[B, T, C]`."""
        return self.down(F.gelu(self.up(x_BTC)))


class EncoderBlock(nn.Module):
    """One pre-norm block of the encoder: every position sees all of the source."""

    def __init__(self, preset: Preset, *, attention: Attention, **made: Unpack[Made]) -> None:
        super().__init__()
        width, heads = preset.d_model, preset.heads
        self.attention_norm = nn.RMSNorm(width, eps=EPS, **made)
        self.attention = SelfAttention(width, heads, attention=attention, **made)
        self.feed_forward_norm = nn.RMSNorm(width, eps=EPS, **made)
        self.feed_forward = FeedForward(width, preset.d_ff, **made)

    def forward(self, x_BSC: Tensor, cos_SE: Tensor, sin_SE: Tensor) -> Tensor:
        """Return `[B, S, C]` from `[B, S, C]` and the angles `[S, E]`."""
        x_BSC = x_BSC + self.attention(self.attention_norm(x_BSC), cos_SE, sin_SE)
        return x_BSC + self.feed_forward(self.feed_forward_norm(x_BSC))


class DecoderBlock(nn.Module):
    """One pre-norm block of the decoder: causal self-attention, attention to the source, feed-forward."""

    def __init__(self, preset: Preset, *, attention: Attention, **made: Unpack[Made]) -> None:
        super().__init__()
        width, heads = preset.d_model, preset.heads
        self.attention_norm = nn.RMSNorm(width, eps=EPS, **made)
        self.attention = SelfAttention(width, heads, attention=attention, is_causal=True, **made)
        self.cross_attention_norm = nn.RMSNorm(width, eps=EPS, **made)
        self.cross_attention = CrossAttention(width, heads, attention=attention, **made)
        self.feed_forward_norm = nn.RMSNorm(width, eps=EPS, **made)
        self.feed_forward = FeedForward(width, preset.d_ff, **made)

    def forward(self, x_BTC: Tensor, encoded_BSC: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        """Return `[B, T, C]` from `[B, T, C]`, the encoded source `[B, S, C]` and the angles `[T, E]`."""
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), cos_TE, sin_TE)
        x_BTC = x_BTC + self.cross_attention(self.cross_attention_norm(x_BTC), encoded_BSC)
        return x_BTC + self.feed_forward(self.feed_forward_norm(x_BTC))


class EncoderDecoder(nn.Module):
    """An encoder-decoder: int64 sources `[B, S]` and targets `[B, T]` to logits `[B, T, V]`.

    Weights are normal with standard deviation 0.02 and norms are one; seed torch before the call for reproducible
    weights. There are no buffers.

    Args:
        preset: Widths, depths, heads and vocabulary.
        attention: `attention(q, k, v, *, is_causal)` over `[B, H, T, D]`, from `stepbench.kernels`.
        **made: The parameters' dtype and device.
    """

    def __init__(self, preset: Preset, *, attention: Attention, **made: Unpack[Made]) -> None:
        super().__init__()
        self.preset = preset
        width, vocabulary = preset.d_model, preset.vocabulary
        self.source_embedding = TokenEmbedding(vocabulary, width, **made)
        self.target_embedding = TokenEmbedding(vocabulary, width, **made)
        self.encoder = nn.ModuleList(
            EncoderBlock(preset, attention=attention, **made) for _ in range(preset.encoder_layers)
        )
        self.encoder_norm = nn.RMSNorm(width, eps=EPS, **made)
        self.decoder = nn.ModuleList(
            DecoderBlock(preset, attention=attention, **made) for _ in range(preset.decoder_layers)
        )
        self.decoder_norm = nn.RMSNorm(width, eps=EPS, **made)
        self.head = Projection(width, vocabulary, **made)

    def forward(self, source_BS: Tensor, target_BT: Tensor) -> Tensor:
        """Return the logits `[B, T, V]` of the token after each position of the target."""
        return self.decode(target_BT, self.encode(source_BS))

    def encode(self, source_BS: Tensor) -> Tensor:
        """Return the encoder's output, `[B, S, C]`, for sources `[B, S]`."""
        x_BSC = self.source_embedding(source_BS)
        cos_SE, sin_SE = rotary_angles(x_BSC, self.preset.head_dim)
        for block in self.encoder:
            x_BSC = block(x_BSC, cos_SE, sin_SE)
        return self.encoder_norm(x_BSC)

    def decode(self, target_BT: Tensor, encoded_BSC: Tensor) -> Tensor:
        """Return the logits `[B, T, V]` from the target so far and the encoded source `[B, S, C]`."""
        x_BTC = self.target_embedding(target_BT)
        cos_TE, sin_TE = rotary_angles(x_BTC, self.preset.head_dim)
        for block in self.decoder:
            x_BTC = block(x_BTC, encoded_BSC, cos_TE, sin_TE)
        return self.head(self.decoder_norm(x_BTC))
