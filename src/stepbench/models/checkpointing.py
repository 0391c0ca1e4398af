"""Activation checkpointing: keep what goes into a group of blocks, and compute the rest again in the backward pass.

With N blocks in groups of k, N/k inputs are kept instead of N blocks' activations, and one group's activations come
back at a time. If a block kept no more than its input, N/k + k would be smallest at k = √N. A block keeps much more
(some thirty times as much here), so that smaller groups may be best; the experiment measures which.

Groups may be nested: a group that is computed again then keeps the inputs of its own groups alone. With blocks one by
one inside groups of k that is N/k + k inputs and one block's activations, for a third forward pass.

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
    """Blocks in a row whose activations are computed again in the backward pass; mutates nothing.

    Args:
        blocks: modules that take (x, cos, sin) and return x.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x_BTC: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        """Return `[B, T, C]` from `[B, T, C]` and the angles `[T, E]`, as the blocks would."""
        # There is no dropout, so no state of a random generator has to be put back.
        return checkpoint(self._run, x_BTC, cos_TE, sin_TE, use_reentrant=False, preserve_rng_state=False)

    def _run(self, x_BTC: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        for block in self.blocks:
            x_BTC = block(x_BTC, cos_TE, sin_TE)
        return x_BTC


def checkpoint_blocks(model: Decoder, *group_sizes: int) -> None:
    """Put a decoder's blocks into checkpointed groups; mutates `model`, whose parameters stay what they are.

    Parameters get other names: `blocks.0.…` becomes `blocks.0.blocks.0.…`.

    Args:
        model: a decoder that is not checkpointed yet.
        group_sizes: blocks per group, from the outermost groups to the innermost, each less than the one before; one
            number is one level. The last group of a level may be smaller.

    Raises:
        ValueError: there is no size, one is below 1 or above the number of blocks, or they do not fall.
    """
    blocks = list(model.blocks)
    falling = all(outer > inner for outer, inner in itertools.pairwise(group_sizes))
    if not group_sizes or not falling or group_sizes[-1] < 1 or group_sizes[0] > len(blocks):
        raise ValueError(
            f"`group_sizes` must be falling numbers from {len(blocks)} (the blocks) to 1, got {list(group_sizes)}"
        )
    model.blocks = nn.ModuleList(_grouped(blocks, group_sizes))


def theoretical_best(blocks: int) -> float:
    """Return √N, the blocks per group that keep the least if a block keeps no more than its input.

    Source: Chen et al. 2016 (arXiv:1604.06174), section 4.1.
    """
    return math.sqrt(blocks)


def _grouped(blocks: Sequence[nn.Module], group_sizes: Sequence[int]) -> list[nn.Module]:
    if not group_sizes:
        return list(blocks)
    size, inner = group_sizes[0], group_sizes[1:]
    return [CheckpointedBlocks(_grouped(blocks[start : start + size], inner)) for start in range(0, len(blocks), size)]
