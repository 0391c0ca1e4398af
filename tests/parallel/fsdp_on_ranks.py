"""What two ranks check about FSDP."""

from __future__ import annotations

import contextlib
import copy
import gc
import time
import weakref
from typing import Any
from unittest import mock

import torch
from tests.parallel.data_parallel_on_ranks import raises
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from stepbench.parallel.fsdp import FSDP
from stepbench.parallel.unit import Unit

WIDTH, BLOCKS = 8, 4
SETTLED_S = 2.0


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 20)
        self.down = nn.Linear(20, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.up(self.norm(x))))


class Model(nn.Module):
    """Embedding, blocks, head: six units."""

    def __init__(self, *, checkpointing: bool | None = None) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.embedding = nn.Embedding(11, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.head = nn.Linear(WIDTH, 11, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x) if self.checkpointing is None else checkpoint(block, x, use_reentrant=self.checkpointing)
        return self.head(x)


def model(dtype: torch.dtype = torch.float64, **more: Any) -> Model:
    torch.manual_seed(0)
    return Model(**more).to(dtype)


def tokens(rank: int | None = None) -> Tensor:
    seed = dist.get_rank() if rank is None else rank
    return torch.randint(0, 11, (3, 5), generator=torch.Generator().manual_seed(seed))


def loss(module: nn.Module, rank: int | None = None) -> Tensor:
    mine = tokens(rank)
    return F.cross_entropy(module(mine).flatten(0, 1), mine.flatten())


def step(wrapped: FSDP) -> None:
    wrapped.zero_grad()
    loss(wrapped).backward()
    wrapped.finish_gradient_synchronization()


def mean_gradients(module: nn.Module) -> dict[str, Tensor]:
    """Return what the gradients of both ranks' batches average to, in one process."""
    module = copy.deepcopy(module)
    for rank in range(2):
        (loss(module, rank) / 2).backward()
    return {name: each.grad for name, each in module.named_parameters() if each.grad is not None}


def whole_gradients(wrapped: FSDP) -> dict[str, Tensor]:
    """Return the gradients of the pieces as whole tensors, by putting them in the place of the parameters."""
    gradients = copy.deepcopy({name: each.grad for name, each in wrapped.module.named_parameters()})
    kept = {name: each.detach().clone() for name, each in wrapped.module.named_parameters()}
    with torch.no_grad():
        for name, each in wrapped.module.named_parameters():
            each.copy_(torch.zeros_like(each) if gradients[name] is None else gradients[name])
        found = wrapped.gather_full_parameters()
        for name, each in wrapped.module.named_parameters():
            each.copy_(kept[name])
    return found


def assert_same_gradients(wrapped: FSDP, expected: dict[str, Tensor], *, within: float = 1e-12) -> None:
    found = whole_gradients(wrapped)
    for name, each in expected.items():
        assert torch.allclose(found[name], each, rtol=within, atol=1e-3 * within), name


class Watched:
    """Notes every gather while it is entered: when it was launched, and whether its result is still in memory."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.buffers: list[weakref.ref[Tensor]] = []

    def __enter__(self) -> Watched:
        original = Unit.start_gather

        def start_gather(unit: Unit) -> Tensor:
            is_new = unit._full is None
            full = original(unit)
            if is_new:
                self.log.append(("gather", tuple(piece.numel() for piece in unit.pieces)))
                self.buffers.append(weakref.ref(full))
            return full

        self._patch = mock.patch.object(Unit, "start_gather", start_gather)
        self._patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.stop()

    def alive(self, *, at_most: int) -> int:
        """Return how many results are in memory, once the backend's threads have let go of what they have sent."""
        end = time.monotonic() + SETTLED_S
        while (found := sum(each() is not None for each in self.buffers)) > at_most and time.monotonic() < end:
            time.sleep(1e-3)
        return found


def check_large_weights_are_sharded_and_the_rest_is_replicated() -> None:
    """A unit's weights stand one after the other and are cut in the middle: a rank has `up` without `down`."""
    wrapped = FSDP(model())
    whole = dict(model().named_parameters())
    counts = {}
    for name, each in wrapped.module.named_parameters():
        if name.endswith("weight") and "norm" not in name:
            assert each.dim() == 1
            counts[name] = each.numel()
        else:
            assert torch.equal(each, whole[name]), name
    everyones: list[Any] = [None, None]
    dist.all_gather_object(everyones, counts)
    for name in counts:
        assert sum(each[name] for each in everyones) == whole[name].numel(), name
    padding = (BLOCKS + 2) * 2 * 64 // 8
    assert abs(sum(everyones[0].values()) - sum(everyones[1].values())) <= padding
    assert everyones[0]["blocks.0.up.weight"] == whole["blocks.0.up.weight"].numel()


def check_gathered_weights_live_only_while_they_are_used() -> None:
    """After a block's forward nothing holds its weights, neither the module nor autograd."""
    wrapped = FSDP(model(), prefetch=0)
    for number in range(2):
        with Watched() as watched:
            most = []
            hooks = [
                block.register_forward_hook(
                    lambda *_, most=most, watched=watched: most.append(watched.alive(at_most=1))
                )
                for block in wrapped.module.blocks
            ]
            value = loss(wrapped)
            assert max(most) <= 1, most
            # From the second step on the head is known to come last, and is kept for the backward pass.
            assert watched.alive(at_most=number) == number
            value.backward()
            wrapped.finish_gradient_synchronization()
            assert watched.alive(at_most=0) == 0
            for hook in hooks:
                hook.remove()


def check_each_unit_is_gathered_for_forward_and_again_for_backward() -> None:
    """But for the embedding, whose backward pass does not look at it, and the head, which is kept in between."""
    for prefetch in (0, 1, 3):
        wrapped = FSDP(model(), prefetch=prefetch)
        step(wrapped)
        wrapped.traffic.reset()
        step(wrapped)
        operations = [each.operation for each in wrapped.traffic.transfers]
        assert operations.count("all_gather") == (BLOCKS + 2) + BLOCKS
        assert operations.count("reduce_scatter") == BLOCKS + 2
        assert operations.count("all_reduce") == 1  # norms and biases
        traffic = wrapped.traffic
        waits = [traffic.wait_s(each) for each in ("all_gather", "reduce_scatter", "all_reduce")]
        assert abs(sum(waits) - traffic.wait_s()) < 1e-9
        assert traffic.busy_s("all_gather") > 0


def check_the_next_unit_travels_while_the_current_one_computes() -> None:
    """In the second step; in the first nobody knows what comes next."""
    orders = {}
    for prefetch in (0, 1):
        wrapped = FSDP(model(), prefetch=prefetch)
        step(wrapped)
        with Watched() as watched:
            for number, block in enumerate(wrapped.module.blocks):
                block.up.register_forward_hook(lambda *_, n=number, w=watched: w.log.append(f"block {n} computes"))
            loss(wrapped)
        orders[prefetch] = [each if isinstance(each, str) else "gather" for each in watched.log]
        wrapped.finish_gradient_synchronization()
    computes = [f"block {number} computes" for number in range(BLOCKS)]
    # Without: the embedding; then each block is gathered when it is needed; then the head.
    assert orders[0] == ["gather", *(word for each in computes for word in ("gather", each)), "gather"]
    # With: two are on their way before the first block computes, and the head is before the last one does.
    assert orders[1] == ["gather", "gather", *(word for each in computes for word in ("gather", each))]


def check_gradients_leave_during_the_backward_pass() -> None:
    wrapped = FSDP(model())
    wrapped.traffic.reset()
    loss(wrapped).backward()
    operations = [each.operation for each in wrapped.traffic.transfers]
    assert operations.count("reduce_scatter") == BLOCKS + 2
    wrapped.finish_gradient_synchronization()
    assert_same_gradients(wrapped, mean_gradients(model()))


def check_low_precision_compute_over_float32_masters() -> None:
    """To the bit what one process gets that computes with a bfloat16 copy, and keeps masters in float32."""
    single = model(torch.float32)
    wrapped = FSDP(model(torch.float32), torch.bfloat16)
    seen = set()
    wrapped.module.blocks[1].up.register_forward_hook(
        lambda module, inputs, output: seen.update({module.weight.dtype, module.bias.dtype, output.dtype}), prepend=True
    )
    optimizer, plain = (torch.optim.SGD(each.parameters(), lr=0.5) for each in (wrapped, single))
    for _ in range(3):
        step(wrapped)
        assert {each.dtype for each in wrapped.parameters()} == {torch.float32}
        assert {each.grad.dtype for each in wrapped.parameters()} == {torch.float32}
        optimizer.step()
        halves = []
        for rank in range(2):
            low = copy.deepcopy(single).bfloat16()
            loss(low, rank).backward()
            halves.append([each.grad / 2 for each in low.parameters()])
        for (name, each), one, two in zip(single.named_parameters(), *halves, strict=True):
            is_sharded = name.endswith("weight") and "norm" not in name
            each.grad = (one + two).float() if is_sharded else one.float() + two.float()
        plain.step()
    assert seen == {torch.bfloat16}
    for name, each in wrapped.gather_full_parameters().items():
        assert torch.equal(each, dict(single.named_parameters())[name]), name


def check_floating_point_inputs_are_cast_and_others_are_not() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x: Tensor, *, more: dict[str, Tensor]) -> tuple[Tensor, torch.dtype]:
            return self.linear(x + more["y"]), more["index"].dtype

    wrapped = FSDP(Two(), torch.bfloat16)
    out, kept = wrapped(torch.ones(1, 3), more={"y": torch.ones(3), "index": torch.ones(3, dtype=torch.int64)})
    assert (out.dtype, kept) == (torch.bfloat16, torch.int64)


def check_checkpointing_of_both_kinds() -> None:
    """Same gradients, still sent during the backward pass, and what checkpointing lets go of stays let go of."""
    expected = mean_gradients(model())
    for reentrant in (False, True):
        wrapped = FSDP(model(checkpointing=reentrant))
        for _ in range(3):
            wrapped.traffic.reset()
            wrapped.zero_grad()
            loss(wrapped).backward()
            operations = [each.operation for each in wrapped.traffic.transfers]
            assert operations.count("reduce_scatter") == BLOCKS + 2, reentrant
            wrapped.finish_gradient_synchronization()
            assert_same_gradients(wrapped, expected)
    kept: dict[bool | None, int] = {}
    for checkpointing in (None, False):
        wrapped = FSDP(model(checkpointing=checkpointing))
        before = activations_alive()
        value = loss(wrapped)
        kept[checkpointing] = activations_alive() - before
        value.backward()
        wrapped.finish_gradient_synchronization()
    assert kept[False] < kept[None] / 2, kept


class Parts(nn.Module):
    """A block whose parts are checkpointed one by one, and one of them is used a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.feed = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.mix, self.feed, self.mix):
            x = x + checkpoint(part, x, use_reentrant=True)
        return x


def check_parts_of_a_block_are_checkpointed_reentrantly() -> None:
    """Each part is a backward pass of its own, in which the block's other weights have no gradient yet."""
    torch.manual_seed(0)
    module = nn.Sequential(Parts(), Parts()).double()
    data = torch.randn(2, 3, WIDTH, dtype=torch.double, requires_grad=True)
    single = copy.deepcopy(module)
    for rank in range(2):
        (single(data[rank]).square().mean() / 2).backward()
    expected = {name: each.grad for name, each in single.named_parameters()}
    wrapped = FSDP(module)
    for passes in (1, 1, 3):
        wrapped.zero_grad()
        wrapped.traffic.reset()
        for number in range(passes):
            with wrapped.no_sync() if number < passes - 1 else contextlib.nullcontext():
                (wrapped(data[dist.get_rank()]).square().mean() / passes).backward()
        operations = [each.operation for each in wrapped.traffic.transfers]
        assert operations.count("reduce_scatter") == 2  # during the backward pass, one for each block
        wrapped.finish_gradient_synchronization()
        assert_same_gradients(wrapped, expected)


def check_norms_of_gradients_are_those_of_whole_gradients() -> None:
    """So that clipping by them scales the gradients of all ranks by the same factor."""
    expected = [*mean_gradients(model()).values()]
    for order in (1.0, 2.0, float("inf")):
        wrapped = FSDP(model())
        step(wrapped)
        right = nn.utils.get_total_norm(expected, order)
        assert torch.allclose(nn.utils.get_total_norm([each.grad for each in wrapped.parameters()], order), right)
        norms = torch._foreach_norm([each.grad for each in wrapped.parameters()], order)
        assert torch.allclose(torch.linalg.vector_norm(torch.stack(norms), order), right)
        found = nn.utils.clip_grad_norm_(wrapped.parameters(), right.item() / 3, order)
        assert torch.allclose(found, right)
        assert_same_gradients(wrapped, {name: each / 3 for name, each in mean_gradients(model()).items()}, within=1e-5)
    piece = wrapped.module.head.weight.grad
    assert type(piece + 1) is type(piece.detach()) is type(copy.deepcopy(piece)) is Tensor
    with raises(ValueError, "the norm of a sharded gradient must be of the whole and of an order above 0"):
        torch.linalg.vector_norm(piece, dim=0)


def check_pieces_that_are_given_other_memory() -> None:
    """By averaged weights that are swapped in, say; what is gathered from then on are these, and they are trained."""
    wrapped, single = FSDP(model()), model()
    for each in wrapped.parameters():
        each.data = each.data * 2
    for each in single.parameters():
        each.data = each.data * 2
    vector = nn.utils.parameters_to_vector(wrapped.parameters())
    nn.utils.vector_to_parameters(vector.clone(), wrapped.parameters())
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (wrapped, single)]
    for _ in range(2):
        for name, each in mean_gradients(single).items():
            single.get_parameter(name).grad = each
        step(wrapped)
        for optimizer in optimizers:
            optimizer.step()
    found = wrapped.gather_full_parameters()
    assert all(torch.allclose(found[name], each, rtol=1e-12) for name, each in single.named_parameters())
    wrapped.float()
    with raises(RuntimeError, "a module must be converted before it is sharded, got a parameter torch.float32 ["):
        loss(wrapped)


def check_a_copy_is_refused() -> None:
    """It would compute with the original's weights."""
    wrapped = FSDP(model())
    for each in (wrapped, wrapped.module, wrapped.module.blocks[1]):
        with raises(TypeError, "a sharded module cannot be copied: copy the module before it is sharded"):
            copy.deepcopy(each)


def activations_alive() -> int:
    """Return how many hidden activations Python or autograd's notes hold."""
    gc.collect()
    return sum(isinstance(each, Tensor) and each.shape == (3, 5, 20) for each in gc.get_objects())


def check_accumulation_and_its_errors() -> None:
    wrapped = FSDP(model())
    wrapped.traffic.reset()
    with wrapped.no_sync():
        (loss(wrapped) / 2).backward()
        with raises(RuntimeError, "must be called outside no_sync()"):
            wrapped.finish_gradient_synchronization()
    assert {each.operation for each in wrapped.traffic.transfers} == {"all_gather"}
    (loss(wrapped) / 2).backward()
    with raises(RuntimeError, "finish_gradient_synchronization() must be called before the next backward pass"):
        loss(wrapped).backward()
    wrapped.finish_gradient_synchronization()
    assert_same_gradients(wrapped, mean_gradients(model()))


def check_gradients_that_nobody_zeroes_add_up() -> None:
    wrapped = FSDP(model())
    for _ in range(2):
        loss(wrapped).backward()
        wrapped.finish_gradient_synchronization()
    assert_same_gradients(wrapped, {name: 2 * each for name, each in mean_gradients(model()).items()})


def check_an_error_in_forward_leaves_the_module_usable() -> None:
    wrapped = FSDP(model())
    with raises(IndexError, "out of range"):
        wrapped(torch.tensor([[99]]))
    with raises(RuntimeError, "shape"):
        wrapped.module.head(torch.ones(1, WIDTH + 1, dtype=torch.float64))
    assert "weight" not in wrapped.module.head.__dict__
    assert torch._C._autograd._top_saved_tensors_default_hooks(False) is None
    step(wrapped)
    assert_same_gradients(wrapped, mean_gradients(model()))


def check_a_change_in_place_is_still_noticed() -> None:
    """Autograd does not look at what hooks have taken; ours look instead."""
    wrapped = FSDP(model())
    hidden = torch.ones(2, WIDTH, dtype=torch.float64, requires_grad=True) * 2
    value = wrapped.module.head(hidden).sum()
    hidden.add_(1)
    with raises(RuntimeError, "modified in place"):
        value.backward()
    wrapped.finish_gradient_synchronization()


def check_frozen_weights_are_freed_in_the_backward_pass_too() -> None:
    """Only the first block and the norms are trained, so every frozen unit behind it is gathered again."""
    module = model()
    for name, each in module.named_parameters():
        each.requires_grad_("norm" in name or name.startswith("blocks.0."))
    wrapped = FSDP(copy.deepcopy(module), prefetch=1)
    for _ in range(2):
        with Watched() as watched:
            most = []
            hooks = [
                block.register_full_backward_hook(
                    lambda *_, most=most, watched=watched: most.append(watched.alive(at_most=3))
                )
                for block in wrapped.module.blocks
            ]
            step(wrapped)
            assert max(most) <= 3, most
            assert watched.alive(at_most=0) == 0
            for hook in hooks:
                hook.remove()
        assert_same_gradients(wrapped, mean_gradients(module))
    module.blocks[0].norm.weight.requires_grad_(False)
    again = FSDP(module)
    module.blocks[0].norm.weight.requires_grad_(True)
    with raises(RuntimeError, "`blocks.0.norm.weight` must be unfrozen before the module is wrapped"):
        again.finish_gradient_synchronization()


def check_forward_passes_in_any_number_and_order() -> None:
    """Evaluation between forward and backward, two forward passes for one backward pass, one that leads nowhere."""
    wrapped = FSDP(model())
    for _ in range(3):
        loss(wrapped)
        with torch.no_grad():
            loss(wrapped)
        wrapped.zero_grad()
        value = (loss(wrapped) + loss(wrapped)) / 2
        with torch.no_grad():
            wrapped(tokens())
        value.backward()
        wrapped.finish_gradient_synchronization()
        assert_same_gradients(wrapped, mean_gradients(model()))


def check_whole_parameters_can_be_gathered_and_loaded() -> None:
    module = model()
    module.head.weight = module.embedding.weight
    expected = {name: each.detach().clone() for name, each in module.named_parameters(remove_duplicate=False)}
    wrapped = FSDP(module)
    found = wrapped.gather_full_parameters()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    doubled = {name: 2 * each for name, each in found.items()}
    wrapped.load_full_parameters(doubled)
    again = wrapped.gather_full_parameters()
    assert all(torch.equal(again[name], doubled[name]) for name in doubled)
    with raises(KeyError, "blocks.0.up.weight"):
        wrapped.load_full_parameters({name: each for name, each in doubled.items() if name != "blocks.0.up.weight"})


def check_modules_of_many_shapes() -> None:
    """Lists of lists, a Sequential as the root, a Linear as the root, attention that reads a weight without a call."""

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList(nn.ModuleList(nn.Linear(4, 4) for _ in range(2)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            for stage in self.stages:
                for layer in stage:
                    x = torch.tanh(layer(x))
            return x

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.out = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.attention(x[None], x[None], x[None])[0])

    class Looping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                for layer in self.layers:
                    x = torch.tanh(layer(x))
            return x

    for make in (
        Nested,
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2))),
        lambda: nn.Linear(4, 3),
        Attending,
        Looping,
        lambda: nn.Sequential(nn.Linear(4, 0), nn.Linear(0, 3)),
    ):
        torch.manual_seed(0)
        module = make().double()
        data = torch.randn(2, 6, 4, dtype=torch.float64)
        single = copy.deepcopy(module)
        for rank in range(2):
            (single(data[rank]).square().mean() / 2).backward()
        wrapped = FSDP(module)
        for _ in range(2):
            wrapped.zero_grad()
            wrapped(data[dist.get_rank()]).square().mean().backward()
            wrapped.finish_gradient_synchronization()
            assert_same_gradients(wrapped, {name: each.grad for name, each in single.named_parameters()})


def check_what_cannot_be_sharded_is_refused() -> None:
    for embedding in (nn.Embedding(5, 3, max_norm=1.0), nn.Embedding(5, 3, sparse=True)):
        with raises(ValueError, "`module` must not have an Embedding with max_norm or sparse gradients"):
            FSDP(nn.Sequential(embedding))
    with raises(ValueError, "`prefetch` must be 0 or more, got -1"):
        FSDP(model(), prefetch=-1)


def check_a_wrapper_is_freed_with_its_last_reference() -> None:
    wrapped = FSDP(model())
    step(wrapped)
    weak = weakref.ref(wrapped), weakref.ref(wrapped.module)
    del wrapped
    gc.collect()
    assert [each() for each in weak] == [None, None]


def check_a_rank_alone_in_its_group() -> None:
    alone = [dist.new_group([rank]) for rank in range(2)][dist.get_rank()]
    wrapped = FSDP(model(), group=alone)
    step(wrapped)
    single = model()
    loss(single).backward()
    assert_same_gradients(wrapped, {name: each.grad for name, each in single.named_parameters()})


class Raw(nn.Module):
    """Holds its matrix itself, as transformers' Conv1D does."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
        self.shift = nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix + self.shift


def check_the_caller_says_which_classes_are_sharded() -> None:
    torch.manual_seed(0)
    module = nn.ModuleDict({"blocks": nn.Sequential(nn.Sequential(Raw(), nn.Tanh(), Raw()), nn.Sequential(Raw()))})
    single, data = copy.deepcopy(module)["blocks"], torch.randn(2, 3, 4, dtype=torch.float64)
    for rank in range(2):
        (single(data[rank]).square().mean() / 2).backward()
    with raises(ValueError, "`sharded` must name classes that hold a matrix to shard, got Linear, Embedding; in this"):
        FSDP(copy.deepcopy(module["blocks"]))
    wrapped = FSDP(module["blocks"], sharded=(Raw,))
    assert wrapped.sharded_ratio == 3 * 16 / (3 * 20)
    kept = sum(each.numel() for name, each in wrapped.named_parameters() if name.endswith("matrix"))
    assert kept == 3 * 16 / 2
    wrapped(data[dist.get_rank()]).square().mean().backward()
    wrapped.finish_gradient_synchronization()
    assert_same_gradients(wrapped, {name: each.grad for name, each in single.named_parameters()})


def check_norms_are_left_in_full_precision() -> None:
    wrapped = FSDP(model(torch.float32), torch.bfloat16, full_precision=(nn.LayerNorm,))
    norm = next(each for each in wrapped.modules() if isinstance(each, nn.LayerNorm))
    seen: list[torch.dtype] = []
    norm.register_forward_hook(lambda module, given, out: seen.extend((module.weight.dtype, given[0].dtype, out.dtype)))
    step(wrapped)
    assert seen == [torch.float32, torch.float32, torch.bfloat16]
    assert {each.grad.dtype for each in wrapped.parameters()} == {torch.float32}
