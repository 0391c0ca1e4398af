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
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stepbench.own_code import OwnCodeError


class CheckpointedBlocks(nn.Module):
    """Consecutive blocks whose activations are recomputed in the backward pass.

    Args:
        blocks: modules that take x `[B, T, C]` and the same further arguments, and return x, or a tuple that begins
            with it. They use no random numbers: there is no dropout.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x_BTC: Tensor, *same: Any, **named: Any) -> Any:
        """Return what the last block returns, each called with what the one before it returned."""
        # There is no dropout, so no state of a random generator needs to be restored.
        return checkpoint(self._run, x_BTC, *same, use_reentrant=False, preserve_rng_state=False, **named)

    def _run(self, x_BTC: Tensor, *same: Any, **named: Any) -> Any:
        output: Any = x_BTC
        for block in self.blocks:
            output = block(output[0] if isinstance(output, tuple) else output, *same, **named)
        return output


def blocks_of(model: nn.Module) -> tuple[nn.Module, str]:
    """Return the module that holds the list of a model's blocks, and the attribute.

    It is the one that the attribute `blocks_name` names, or else the only ModuleList or Sequential that stands in no
    other, as `blocks` of a `Decoder` does.

    Raises:
        OwnCodeError: there is no such list, or several.
    """
    named: str | None = getattr(model, "blocks_name", None)
    lists = [name for name, each in model.named_modules() if isinstance(each, nn.ModuleList | nn.Sequential)]
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if named is None and len(outermost) == 1:
        named = outermost[0]
    if named is None or named not in lists:
        source = getattr(model, "source", "the model")
        shown = ", ".join(name.removeprefix("module.") for name in outermost) or "none"
        raise OwnCodeError(f"`{source}` must have one list of blocks, or `blocks` in config.yaml name it; got {shown}")
    parent, _, attribute = named.rpartition(".")
    return model.get_submodule(parent), attribute


def checkpoint_blocks(model: nn.Module, *group_sizes: int) -> None:
    """Move a model's blocks into checkpointed groups, in place; the parameters are the same tensors.

    Parameters get other names: `blocks.0.…` becomes `blocks.0.blocks.0.…`.

    Args:
        model: a decoder, or another model with a list of blocks (`blocks_of`), that is not checkpointed yet.
        group_sizes: blocks per group, one number per level of nesting, from the outermost groups to the innermost,
            strictly decreasing. The last group of a level may be smaller.

    Raises:
        ValueError: there is no size, one is below 1 or above the number of blocks, or they do not decrease.
        OwnCodeError: it is not clear which its blocks are; or a model of the user's own has fewer than a group.
    """
    parent, attribute = blocks_of(model)
    container: Any = getattr(parent, attribute)
    blocks = list(container)
    falling = all(outer > inner for outer, inner in itertools.pairwise(group_sizes))
    source = getattr(model, "source", None)
    if source is not None and falling and group_sizes and group_sizes[0] > len(blocks):
        raise OwnCodeError(
            f"`{source}` has {len(blocks)} blocks, so that `groups` must begin with at most {len(blocks)}, got "
            f"{'-'.join(map(str, group_sizes))}"
        )
    if not group_sizes or not falling or group_sizes[-1] < 1 or group_sizes[0] > len(blocks):
        raise ValueError(
            f"`group_sizes` must be decreasing numbers from {len(blocks)} (the blocks) to 1, got {list(group_sizes)}"
        )
    groups = _grouped(blocks, group_sizes)
    is_list = isinstance(container, nn.ModuleList)
    setattr(parent, attribute, nn.ModuleList(groups) if is_list else nn.Sequential(*groups))


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
