"""The shape of an encoder-decoder, and which shapes are valid.

The presets themselves are configuration (`presets:` in config.yaml). This module imports only the standard library,
because the Snakefile imports it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from stepbench.models.sizes import Problem, Shape, ShapeError, value_problems

MAX_VOCABULARY = 2**16


@dataclass(frozen=True)
class Preset(Shape):
    """The six numbers that define an encoder-decoder's shape.

    Attributes:
        d_model: Width of the residual streams.
        d_ff: Width inside the feed-forward parts.
        encoder_layers: Number of the encoder's blocks.
        decoder_layers: Number of the decoder's blocks.
        heads: Number of attention heads; divides `d_model` into an even `head_dim`.
        vocabulary: Number of token ids, for source and target alike; at most 65 536, so that an id fits two bytes.

    Raises:
        ShapeError: The shape is invalid.
    """

    key = "presets"
    d_model: int
    d_ff: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    vocabulary: int

    def __post_init__(self) -> None:
        if problems := value_problems(asdict(self)):
            raise ShapeError(problems)
        if self.vocabulary > MAX_VOCABULARY:
            raise ShapeError([Problem(("vocabulary",), f"must be at most {MAX_VOCABULARY}, got {self.vocabulary}")])


def parameters(preset: Preset) -> int:
    """Count the parameters of an encoder-decoder.

    An encoder block has four attention matrices `[C, C]`, two of the feed-forward `[C, F]` and two norms `[C]`; a
    decoder block has four more attention matrices and one more norm. Encoder and decoder each end in a norm. Two
    embeddings and the head are `[V, C]` each.
    """
    width = preset.d_model
    encoder = _encoder_matrix_entries(preset) + 2 * width
    decoder = _decoder_matrix_entries(preset) + 3 * width
    blocks = preset.encoder_layers * encoder + preset.decoder_layers * decoder
    return 3 * preset.vocabulary * width + blocks + 2 * width


def step_flops(preset: Preset, *, batch: int, context: int) -> int:
    """Count the FLOPs of one training step over sources and targets of `[batch, context]` tokens each.

    The convention is that of `stepbench.models.costs`: only matrix products, 2 FLOPs per multiply-add, full attention,
    the backward pass twice the forward pass.
    """
    tokens = batch * context
    matrices = preset.encoder_layers * _encoder_matrix_entries(preset)
    matrices += preset.decoder_layers * _decoder_matrix_entries(preset)
    matrices += preset.vocabulary * preset.d_model
    # Scores and values: one attention per encoder block, two per decoder block.
    attention = (preset.encoder_layers + 2 * preset.decoder_layers) * 2 * (2 * tokens * context * preset.d_model)
    return 3 * (2 * tokens * matrices + attention)


def _encoder_matrix_entries(preset: Preset) -> int:
    return 4 * preset.d_model**2 + 2 * preset.d_model * preset.d_ff


def _decoder_matrix_entries(preset: Preset) -> int:
    return 8 * preset.d_model**2 + 2 * preset.d_model * preset.d_ff
