"""What the shape of an encoder-decoder is, and which shapes can be built.

The presets themselves are configuration (`presets:` in config.yaml). The standard library alone is imported here:
parsing the Snakefile reads this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import cast

from stepbench.models.sizes import Problem, ShapeError, size_problems, value_problems

MAX_VOCABULARY = 2**16


@dataclass(frozen=True)
class Preset:
    """The six numbers that fix an encoder-decoder's shape.

    Attributes:
        d_model: Width of the residual streams.
        d_ff: Width inside the feed-forward parts.
        encoder_layers: Number of the encoder's blocks.
        decoder_layers: Number of the decoder's blocks.
        heads: Number of attention heads; divides `d_model` into an even `head_dim`.
        vocabulary: Number of token ids, of the source as of the target; at most 65 536, which two bytes hold.

    Raises:
        ShapeError: No encoder-decoder has this shape.
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
        """Build the preset that `presets.<name>` of config.yaml describes.

        Args:
            name: The preset's name, for the error's path.
            section: What YAML gave for it; must be a mapping of exactly the six fields.

        Raises:
            ShapeError: No encoder-decoder has this shape.
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

    A block of the encoder has four attention matrices `[C, C]`, two of the feed-forward `[C, F]` and two norms `[C]`;
    one of the decoder four more matrices and one more norm. Each side ends in a norm; beside them stand two embeddings
    and the head, each `[V, C]`.
    """
    width = preset.d_model
    encoder = _encoder_matrix_entries(preset) + 2 * width
    decoder = _decoder_matrix_entries(preset) + 3 * width
    blocks = preset.encoder_layers * encoder + preset.decoder_layers * decoder
    return 3 * preset.vocabulary * width + blocks + 2 * width


def step_flops(preset: Preset, *, batch: int, context: int) -> int:
    """Count the FLOPs of one training step over sources and targets of `[batch, context]` tokens each.

    The convention is that of `stepbench.models.costs`: matrix products alone, a multiply-add is 2, attention in full,
    the backward pass twice the forward pass.
    """
    tokens = batch * context
    matrices = preset.encoder_layers * _encoder_matrix_entries(preset)
    matrices += preset.decoder_layers * _decoder_matrix_entries(preset)
    matrices += preset.vocabulary * preset.d_model
    # Scores and values of the encoder's one attention and of the decoder's two.
    attention = (preset.encoder_layers + 2 * preset.decoder_layers) * 2 * (2 * tokens * context * preset.d_model)
    return 3 * (2 * tokens * matrices + attention)


def _encoder_matrix_entries(preset: Preset) -> int:
    return 4 * preset.d_model**2 + 2 * preset.d_model * preset.d_ff


def _decoder_matrix_entries(preset: Preset) -> int:
    return 8 * preset.d_model**2 + 2 * preset.d_model * preset.d_ff
