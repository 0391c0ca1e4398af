"""Checkpointed groups change what is kept, and nothing else: not a bit of loss or gradient."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepbench.models.checkpointing import CheckpointedBlocks, checkpoint_blocks, theoretical_best
from stepbench.models.decoder import Decoder, next_token_loss
from stepbench.models.sizes import ModelSize

SIZE = ModelSize(d_model=32, d_ff=48, layers=6, heads=2)
VOCABULARY = 61


def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(SIZE, vocabulary=VOCABULARY, attention=F.scaled_dot_product_attention, dtype=torch.float64)


def tokens() -> tuple[Tensor, Tensor]:
    windows = torch.randint(VOCABULARY, (2, 17), generator=torch.Generator().manual_seed(1))
    return windows[:, :-1], windows[:, 1:]


def kept_bytes(model: nn.Module) -> int:
    """Return what autograd keeps for the backward pass."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        next_token_loss(model(tokens()[0]), tokens()[1])
    return sum(storages.values())


@pytest.mark.parametrize("sizes", [(1,), (2,), (4,), (6,), (3, 1), (6, 2), (6, 3, 1)], ids=str)
def test_loss_and_gradients_are_the_same_to_the_bit(sizes: tuple[int, ...]) -> None:
    plain, grouped = decoder(), decoder()
    checkpoint_blocks(grouped, *sizes)
    inputs, targets = tokens()
    losses = [next_token_loss(model(inputs), targets) for model in (plain, grouped)]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    for ours, theirs in zip(plain.parameters(), grouped.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    ("sizes", "runs"),
    [((1,), 2), ((3,), 2), ((6,), 2), ((3, 1), 3), ((6, 3, 1), 4)],
    ids=str,
)
def test_each_level_runs_a_block_once_more(sizes: tuple[int, ...], runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder()
    counts: dict[int, int] = {}

    def counted(index: int, forward: Any, *arguments: Tensor) -> Tensor:
        counts[index] = counts.get(index, 0) + 1
        return forward(*arguments)

    for index, block in enumerate(list(model.blocks)):
        monkeypatch.setattr(block, "forward", functools.partial(counted, index, block.forward))
    checkpoint_blocks(model, *sizes)
    next_token_loss(model(tokens()[0]), tokens()[1]).backward()
    # The last blocks of a level may be spared a run: recomputation ends with the last tensor that is needed.
    assert max(counts.values()) == runs
    assert counts.keys() == set(range(SIZE.layers))


def test_fewer_and_larger_groups_keep_less() -> None:
    kept = []
    for sizes in ((), (1,), (2,), (3,), (6,)):
        model = decoder()
        if sizes:
            checkpoint_blocks(model, *sizes)
        kept.append(kept_bytes(model))
    assert kept == sorted(kept, reverse=True)
    one_input = 2 * 16 * SIZE.d_model * 8
    assert kept[1] - kept[2] == 3 * one_input  # six groups keep three inputs more than three groups do


def test_the_last_group_may_be_smaller_and_parameters_stay() -> None:
    model = decoder()
    before = [id(parameter) for parameter in model.parameters()]
    checkpoint_blocks(model, 4)
    assert [len(group.blocks) for group in model.blocks] == [4, 2]  # type: ignore[arg-type]
    assert all(isinstance(group, CheckpointedBlocks) for group in model.blocks)
    assert [id(parameter) for parameter in model.parameters()] == before


@pytest.mark.parametrize("sizes", [(), (0,), (7,), (2, 2), (1, 2), (3, 0)], ids=str)
def test_groups_that_cannot_be_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"`group_sizes` must be decreasing numbers from 6 \(the blocks\) to 1, got"):
        checkpoint_blocks(decoder(), *sizes)


def test_the_theory_is_the_square_root() -> None:
    assert theoretical_best(16) == 4.0
