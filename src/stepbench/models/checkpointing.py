"""Activation checkpointing: save the input of each group of blocks, and recompute the rest in the backward pass.

With N blocks in groups of k, N/k inputs are saved instead of N blocks' activations, and the backward pass recomputes
one group's activations at a time. If a block saved only its input, N/k + k would be smallest at k = √N. A block saves
much more (some thirty times as much here), so smaller groups may be best; the experiment measures which.

Groups may be nested: a group that is recomputed then saves only the inputs of its own groups. With single blocks
inside groups of k that is N/k + k inputs and one block's activations, at the cost of a third forward pass.

Source: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost (arXiv:1604.06174), sections 4.1 and 4.4.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stepbench.models.decoder import Decoder


class CheckpointedBlocks(nn.Module):
    """Consecutive blocks whose activations are recomputed in the backward pass.

    Args:
        blocks: modules that take (x, cos, sin) and return x.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x_BTC: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        """Return `[B, T, C]` from `[B, T, C]` and the angles `[T, E]`, as the blocks would."""
        # There is no dropout, so no state of a random generator needs to be restored.
        return checkpoint(self._run, x_BTC, cos_TE, sin_TE, use_reentrant=False, preserve_rng_state=False)

    def _run(self, x_BTC: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        for block in self.blocks:
            x_BTC = block(x_BTC, cos_TE, sin_TE)
        return x_BTC


def checkpoint_blocks(model: Decoder, *group_sizes: int) -> None:
    """Move a decoder's blocks into checkpointed groups, in place; the parameters are the same tensors.

    Parameters get other names: `blocks.0.…` becomes `blocks.0.blocks.0.…`.

    Args:
        model: a decoder that is not checkpointed yet.
        group_sizes: blocks per group, one number per level of nesting, from the outermost groups to the innermost,
            strictly decreasing. The last group of a level may be smaller.

    Raises:
        ValueError: there is no size, one is below 1 or above the number of blocks, or they do not decrease.
    """
    blocks = list(model.blocks)
    falling = all(outer > inner for outer, inner in itertools.pairwise(group_sizes))
    if not group_sizes or not falling or group_sizes[-1] < 1 or group_sizes[0] > len(blocks):
        raise ValueError(
            f"`group_sizes` must be decreasing numbers from {len(blocks)} (the blocks) to 1, got {list(group_sizes)}"
        )
    model.blocks = nn.ModuleList(_grouped(blocks, group_sizes))


def theoretical_best(blocks: int) -> float:
    """Return √N, the blocks per group that save the least if a block saves only its input.

    Source: Chen et al. 2016 (arXiv:1604.06174), section 4.1.
    """
    return math.sqrt(blocks)


def _grouped(blocks: Sequence[nn.Module], group_sizes: Sequence[int]) -> list[nn.Module]:
    if not group_sizes:
        return list(blocks)
    size, inner = group_sizes[0], group_sizes[1:]
    return [CheckpointedBlocks(_grouped(blocks[start : start + size], inner)) for start in range(0, len(blocks), size)]
