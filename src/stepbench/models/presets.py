"""The shape of an encoder-decoder, and which shapes are valid.

The presets themselves are configuration (`presets:` in config.yaml). This module imports only the standard library,
because the Snakefile imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import cast

from stepbench.models.sizes import Problem, ShapeError, size_problems, value_problems

MAX_VOCABULARY = 2**16


@dataclass(frozen=True)
class Preset:
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

    d_model: int
    d_ff: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    vocabulary: int

    def __post_init__(self) -> None:
        if problems := value_problems(asdict(self)) or _vocabulary_problems(self.vocabulary):
            raise ShapeError(problems)

    @property
    def head_dim(self) -> int:
        """Return the width of one attention head, `d_model / heads`."""
        return self.d_model // self.heads

    @classmethod
    def from_config(cls, name: str, section: object) -> Preset:
        """Return the preset that `presets.<name>` of config.yaml describes.

        Args:
            name: The preset's name, for error messages.
            section: Its value from YAML; must be a mapping of exactly the six fields.

        Raises:
            ShapeError: The shape is invalid.
        """
        problems = size_problems(name, section, cls, "presets")
        shape = cast(Mapping[str, int], section)
        if problems := problems or _vocabulary_problems(shape["vocabulary"], at=("presets", name)):
            raise ShapeError(problems)
        return cls(**shape)


def _vocabulary_problems(vocabulary: int, *, at: tuple[str, ...] = ()) -> list[Problem]:
    if vocabulary <= MAX_VOCABULARY:
        return []
    return [Problem((*at, "vocabulary"), f"must be at most {MAX_VOCABULARY}, got {vocabulary}")]


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
