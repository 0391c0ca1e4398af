"""What ranks check about the sharded optimizer."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import torch
from tests.parallel.data_parallel_on_ranks import backward, batch, layers, raises
from torch import Tensor, nn
from torch import distributed as dist

from stepbench.parallel.data_parallel import DataParallel
from stepbench.parallel.naive import NaiveDDP
from stepbench.parallel.sharded_optimizer import BROADCAST, REDUCE_SCATTER, VARIANTS, ShardedOptimizer

# One to save with, another to load with: the state must not know how it was divided.
BUCKET_MIB = {BROADCAST: 25, REDUCE_SCATTER: 1e-4}
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "AdamW": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    "SGD": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.1}),
    "NAdam": (torch.optim.NAdam, {"lr": 0.01}),
    "AdamW foreach": (torch.optim.AdamW, {"lr": 0.01, "foreach": True}),
    "AdamW fused": (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
}


def groups(module: nn.Module) -> list[dict[str, Any]]:
    """Return matrices and the rest with other hyperparameters, as training scripts do."""
    matrices = [each for each in module.parameters() if each.dim() > 1]
    rest = [each for each in module.parameters() if each.dim() < 2]
    return [{"params": matrices}, {"params": rest, "weight_decay": 0.0, "lr": 0.02}]


def sharded(module: nn.Module, cls: type[torch.optim.Optimizer], variant: str, **more: Any) -> tuple[nn.Module, Any]:
    """Return a module whose gradients are synchronised by whoever the variant leaves that to, and the optimizer."""
    wrapped = NaiveDDP(module) if variant == BROADCAST else DataParallel(module)
    return wrapped, ShardedOptimizer(groups(module), cls, variant=variant, bucket_mib=BUCKET_MIB[variant], **more)


def train(wrapped: nn.Module, optimizer: Any, steps: int, *, everyones: bool = False) -> None:
    """Train on this rank's data, or on the mean over the data of two ranks, whatever the number of ranks."""
    for step in range(steps):
        optimizer.zero_grad()
        if everyones:
            (sum(wrapped(batch(10 * step + rank)).square().mean() for rank in range(2)) / 2).backward()
        else:
            wrapped(batch(10 * step + dist.get_rank())).square().mean().backward()
        if isinstance(wrapped, DataParallel):
            wrapped.finish_gradient_synchronization()
        optimizer.step()


def single(cls: type[torch.optim.Optimizer], options: dict[str, Any], steps: int) -> tuple[nn.Module, Any]:
    module = layers()
    optimizer = cls(groups(module), **options)
    train(module, optimizer, steps, everyones=True)
    return module, optimizer


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Assert that two state dicts agree: keys, shapes and dtypes exactly, numbers to 1e-12."""
    if isinstance(one, Tensor):
        assert one.shape == other.shape, (where, one.shape, other.shape)
        assert one.dtype == other.dtype, (where, one.dtype, other.dtype)
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-15), (where, one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), (where, list(one), list(other))
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            assert_same(mine, theirs, f"{where}[{index}]")
    else:
        assert one == other, (where, one, other)


def check_every_optimizer_has_the_state_of_one_process() -> None:
    """The same keys, shapes and numbers as the optimizer that was sharded, whichever rank kept what."""
    for cls, options in OPTIMIZERS.values():
        expected, plain = single(cls, options, steps=3)
        for variant in VARIANTS:
            module = layers()
            wrapped, optimizer = sharded(module, cls, variant, **options)
            train(wrapped, optimizer, steps=3)
            assert_same(optimizer.state_dict(), plain.state_dict())
            for mine, one in zip(module.parameters(), expected.parameters(), strict=True):
                assert torch.allclose(mine, one, rtol=1e-12, atol=1e-15), (cls, variant)


def check_state_can_be_gathered_on_one_rank_alone() -> None:
    for variant in VARIANTS:
        wrapped, optimizer = sharded(layers(), torch.optim.AdamW, variant)
        train(wrapped, optimizer, steps=1)
        found = optimizer.state_dict(to=1)
        assert bool(found["state"]) == (dist.get_rank() == 1)
        assert len(found["param_groups"]) == 2


def check_a_round_trip_changes_nothing() -> None:
    for variant in VARIANTS:
        module = layers()
        wrapped, optimizer = sharded(module, torch.optim.AdamW, variant, lr=0.01)
        train(wrapped, optimizer, steps=2)
        saved, parameters = optimizer.state_dict(), copy.deepcopy(module.state_dict())
        train(wrapped, optimizer, steps=1)
        expected = [each.clone() for each in module.parameters()]
        module.load_state_dict(parameters)
        optimizer.load_state_dict(saved)
        assert_same(optimizer.state_dict(), saved)
        train(wrapped, optimizer, steps=1)
        assert all(map(torch.equal, module.parameters(), expected))


def check_state_that_does_not_fit_is_refused() -> None:
    _, optimizer = sharded(layers(), torch.optim.AdamW, BROADCAST)
    other = torch.optim.AdamW(layers().parameters())
    with raises(ValueError, r"`state_dict` must have groups of [3, 3] parameters, got groups of [6]"):
        optimizer.load_state_dict(other.state_dict())


def check_hooks_of_the_state_dict_are_called() -> None:
    called = []
    _, optimizer = sharded(layers(), torch.optim.AdamW, REDUCE_SCATTER)
    optimizer.register_state_dict_pre_hook(lambda _: called.append("before saving"))
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "more": 1})
    optimizer.register_load_state_dict_pre_hook(lambda _, state: called.append(state.pop("more")))
    optimizer.register_load_state_dict_post_hook(lambda _: called.append("after loading"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert called == ["before saving", 1, "after loading"]


def check_every_rank_keeps_its_part_of_the_state_alone() -> None:
    """In the end all ranks together hold the state once; by bytes it is even to within the largest parameter."""
    world = dist.get_world_size()
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(8 + number, 9 + number) for number in range(12)))
    for variant in VARIANTS:
        copied = copy.deepcopy(module)
        wrapped, optimizer = sharded(copied, torch.optim.AdamW, variant)
        assert sum(len(state) for state in optimizer.state.values()) == 0
        wrapped(torch.ones(1, 8)).sum().backward()
        wrapped.finish_gradient_synchronization()
        optimizer.step()
        mine = sum(each.nbytes for state in optimizer.state.values() for each in state.values() if each.dim())
        everyones = [None] * world
        dist.all_gather_object(everyones, mine)
        whole = 2 * sum(each.nbytes for each in module.parameters())
        largest = 2 * max(each.nbytes for each in module.parameters())
        assert sum(everyones) == whole, (variant, everyones, whole)
        # A slice ends where the buffer is divided evenly, padding included.
        slack = largest if variant == BROADCAST else 2 * 64 * world * len(list(module.parameters()))
        assert max(everyones) - min(everyones) <= slack, (variant, everyones)


def check_groups_that_are_added_later() -> None:
    """They are divided with what each rank has already in mind, and trained with their own hyperparameters."""
    for variant in VARIANTS:
        results = []
        for cls in (torch.optim.AdamW, None):
            module, late = layers(), nn.Linear(2, 2).double()
            with torch.no_grad():
                late.weight.fill_(0.5), late.bias.fill_(0.1)
            both = nn.Sequential(module, late)
            options = {"lr": 0.01}
            if cls is None:
                wrapped = NaiveDDP(both) if variant == BROADCAST else DataParallel(both)
                optimizer: Any = ShardedOptimizer(module.parameters(), torch.optim.AdamW, variant=variant, **options)
            else:
                wrapped, optimizer = NaiveDDP(both), cls(module.parameters(), **options)
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
            for step in range(3):
                if step == 1:
                    optimizer.add_param_group({"params": late.parameters(), "lr": 0.3, "weight_decay": 0.2})
                    scheduler.base_lrs.append(0.3)
                    scheduler.lr_lambdas.append(scheduler.lr_lambdas[0])
                optimizer.zero_grad()
                backward(wrapped)
                wrapped.finish_gradient_synchronization()
                optimizer.step()
                scheduler.step()
            results.append([each.detach().clone() for each in both.parameters()])
        for one, other in zip(*results, strict=True):
            assert torch.allclose(one, other, rtol=1e-12, atol=1e-15), variant


def check_a_closure_is_called_with_gradients_enabled() -> None:
    for variant in VARIANTS:
        wrapped, optimizer = sharded(layers(), torch.optim.SGD, variant, lr=0.1)

        def closure(wrapped: nn.Module = wrapped, optimizer: Any = optimizer) -> float:
            optimizer.zero_grad()
            loss = wrapped(batch()).square().mean()
            loss.backward()
            wrapped.finish_gradient_synchronization()
            return loss.item()

        first, second = optimizer.step(closure), optimizer.step(closure)
        assert second < first


def check_reduce_scatter_consumes_gradients_during_the_backward_pass() -> None:
    wrapped, optimizer = sharded(layers(), torch.optim.AdamW, REDUCE_SCATTER)
    optimizer.traffic.reset()
    backward(wrapped)
    assert all(each.grad is None for each in wrapped.parameters())
    assert {each.operation for each in optimizer.traffic.transfers} == {"reduce_scatter"}
    launched = optimizer.traffic.calls
    assert launched > 0
    with raises(RuntimeError, "step() must be called before the next backward pass, or that be inside no_sync()"):
        backward(wrapped)
    optimizer.finish_gradient_synchronization()
    optimizer.finish_gradient_synchronization()  # once is enough
    optimizer.step()
    operations = [each.operation for each in optimizer.traffic.transfers]
    assert operations.count("reduce_scatter") == operations.count("all_gather") == launched
    assert operations.count("all_reduce") == 1


def check_accumulation_without_communication() -> None:
    wrapped, optimizer = sharded(layers(), torch.optim.AdamW, REDUCE_SCATTER)
    optimizer.traffic.reset()
    with optimizer.no_sync():
        backward(wrapped)
        backward(wrapped)
        with raises(RuntimeError, "must be called outside no_sync()"):
            optimizer.step()
    assert optimizer.traffic.calls == 0
    assert all(each.grad is not None for each in wrapped.parameters())
    optimizer.step()  # what was accumulated is sent now


def check_a_step_goes_in_stages() -> None:
    """With small messages there are several, and what was updated in one travels before the next is computed."""
    for variant in VARIANTS:
        torch.manual_seed(0)
        module = nn.Sequential(*(nn.Linear(6, 6) for _ in range(20))).double()
        expected = copy.deepcopy(module)
        wrapped = NaiveDDP(module) if variant == BROADCAST else DataParallel(module)
        optimizer = ShardedOptimizer(module.parameters(), torch.optim.AdamW, variant=variant, bucket_mib=1e-6, lr=0.1)
        plain = torch.optim.AdamW(expected.parameters(), lr=0.1)
        stages = {piece.stage for piece in optimizer.pieces}
        assert stages == set(range(len(stages)))
        assert 4 <= len(stages) <= 9, stages
        for _ in range(2):
            for each, stepper in ((wrapped, optimizer), (expected, plain)):
                stepper.zero_grad()
                each(torch.ones(1, 6, dtype=torch.float64)).square().sum().backward()
                if isinstance(each, DataParallel):
                    each.finish_gradient_synchronization()
                stepper.step()
        for mine, one in zip(module.parameters(), expected.parameters(), strict=True):
            assert torch.allclose(mine, one, rtol=1e-12, atol=1e-15), variant
        assert_same(optimizer.state_dict(), plain.state_dict())


def check_more_ranks_than_parameters() -> None:
    for variant in VARIANTS:
        module = nn.Linear(3, 2, bias=False).double()
        with torch.no_grad():
            module.weight.fill_(0.5)
        wrapped = NaiveDDP(module) if variant == BROADCAST else DataParallel(module)
        optimizer = ShardedOptimizer(module.parameters(), torch.optim.AdamW, variant=variant, lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            wrapped(batch(0)).sum().backward()
            wrapped.finish_gradient_synchronization()
            optimizer.step()
        assert list(optimizer.state_dict()["state"]) == [0]
        assert optimizer.state_dict()["state"][0]["exp_avg"].shape == (2, 3)


def check_parameters_are_still_the_modules_own() -> None:
    """They are moved, not replaced: hooks, names and ties live on."""
    for variant in VARIANTS:
        module = layers()
        before = {name: id(each) for name, each in module.named_parameters()}
        values = copy.deepcopy(module.state_dict())
        if dist.get_rank() == 1:
            with torch.no_grad():
                module[0].weight.add_(1)
        ShardedOptimizer(module.parameters(), torch.optim.AdamW, variant=variant)
        assert {name: id(each) for name, each in module.named_parameters()} == before
        assert_same(dict(module.state_dict()), dict(values))
        assert all(each.data_ptr() % 64 == 0 for each in module.parameters())


def check_parameters_with_one_element_or_none() -> None:
    """Where a count and a state of one number for each element have the same number of elements, or nothing is sent."""
    for cls in (torch.optim.NAdam, torch.optim.ASGD):
        for variant in VARIANTS:
            results = []
            for is_sharded in (False, True):
                module = nn.Module()
                module.scalar = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
                module.one = nn.Parameter(torch.full((1,), 0.25, dtype=torch.float64))
                module.column = nn.Parameter(torch.full((1, 1), 0.125, dtype=torch.float64))
                module.empty = nn.Parameter(torch.empty(0, 3, dtype=torch.float64))
                parameters = list(module.parameters())
                optimizer: Any = (
                    ShardedOptimizer(parameters, cls, variant=variant, bucket_mib=1e-6, lr=0.1)
                    if is_sharded
                    else cls(parameters, lr=0.1)
                )
                for _ in range(2):
                    optimizer.zero_grad()
                    (module.scalar * module.one.sum() * module.column.sum() + module.empty.sum()).backward()
                    optimizer.step()
                optimizer.load_state_dict(optimizer.state_dict())
                results.append([optimizer.state_dict(), dict(module.state_dict())])
            assert_same(results[1], results[0])


def check_a_group_in_the_middle_of_a_step_is_refused() -> None:
    wrapped, optimizer = sharded(layers(), torch.optim.AdamW, REDUCE_SCATTER)
    backward(wrapped)
    with raises(RuntimeError, "a group must be added before the backward pass or after step(), got one in between"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))]})


def check_parameters_that_are_given_other_memory() -> None:
    """By averaged weights that are swapped in, say; the optimizer updates what the module computes with."""
    for variant in VARIANTS:
        cls, options = OPTIMIZERS["SGD"]
        (plain, optimizer), module = single(cls, options, 1), layers()
        wrapped, own = sharded(module, cls, variant, **options)
        train(wrapped, own, 1)
        for each in (*plain.parameters(), *module.parameters()):
            each.data = each.data * 2
        train(plain, optimizer, 2, everyones=True)
        train(wrapped, own, 2)
        for found, right in zip(module.parameters(), plain.parameters(), strict=True):
            assert torch.allclose(found, right, rtol=1e-12, atol=1e-15), variant
        module.float()
        with raises(RuntimeError, "a module must be converted before it is sharded, got a parameter torch.float32 ["):
            own.step()


def check_what_cannot_be_sharded_is_refused() -> None:
    module = layers()
    with raises(ValueError, "`variant` must be one of broadcast, reduce_scatter, got 'scatter'"):
        ShardedOptimizer(module.parameters(), torch.optim.AdamW, variant="scatter")
    with raises(ValueError, "`optimizer_cls` must update what a rank owns by itself, got LBFGS"):
        ShardedOptimizer(module.parameters(), torch.optim.LBFGS)
    with raises(ValueError, "`optimizer_cls` must update what a rank owns by itself, got Adafactor"):
        ShardedOptimizer(module.parameters(), torch.optim.Adafactor, variant=REDUCE_SCATTER)
    with raises(ValueError, "`params` must have at least one parameter, got none"):
        ShardedOptimizer([], torch.optim.AdamW)
    with raises(ValueError, "`bucket_mib` must be positive, got 0"):
        ShardedOptimizer(module.parameters(), torch.optim.AdamW, bucket_mib=0)
    with raises(ValueError, "`params` must be contiguous to be cut, got strides (1, 2)"):
        ShardedOptimizer([nn.Parameter(torch.ones(3, 2).t())], torch.optim.AdamW, variant=REDUCE_SCATTER)
    with raises(ValueError, "Invalid learning rate: -1"):
        ShardedOptimizer(module.parameters(), torch.optim.AdamW, lr=-1)
    ShardedOptimizer(module.parameters(), torch.optim.Adafactor, variant=BROADCAST)


def check_a_parameter_that_is_unfrozen_later_is_refused() -> None:
    module = layers()
    module[0].bias.requires_grad_(False)
    optimizer = ShardedOptimizer(module.parameters(), torch.optim.AdamW)
    optimizer.step()
    module[0].bias.requires_grad_(True)
    with raises(RuntimeError, "a parameter must be unfrozen before the optimizer gets it"):
        optimizer.step()


def check_an_optimizer_is_freed_with_its_last_reference() -> None:
    for variant in VARIANTS:
        wrapped, optimizer = sharded(layers(), torch.optim.AdamW, variant)
        train(wrapped, optimizer, steps=1)
        weak = weakref.ref(wrapped.module)
        del wrapped, optimizer
        gc.collect()
        assert weak() is None, variant


def check_state_can_be_saved(*, folder: str) -> None:
    """Two steps, then module and optimizer of each variant into a file, for `load`."""
    for variant in VARIANTS:
        module = layers()
        wrapped, optimizer = sharded(module, torch.optim.AdamW, variant, **OPTIMIZERS["AdamW"][1])
        train(wrapped, optimizer, steps=2)
        state = optimizer.state_dict(to=0)
        if dist.get_rank() == 0:
            torch.save({"module": module.state_dict(), "optimizer": state}, Path(folder, f"{variant}.pt"))


def load(*, folder: str) -> None:
    """Go on for two steps from each file with each variant, on any number of ranks; end as one process does."""
    expected, plain = single(*OPTIMIZERS["AdamW"], steps=4)
    for saved_by in VARIANTS:
        saved = torch.load(Path(folder, f"{saved_by}.pt"), weights_only=True)
        for variant in VARIANTS:
            module = layers()
            module.load_state_dict(saved["module"])
            wrapped, optimizer = sharded(module, torch.optim.AdamW, variant, lr=0.7)
            optimizer.load_state_dict(saved["optimizer"])
            for step in (2, 3):
                optimizer.zero_grad()
                (sum(wrapped(batch(10 * step + rank)).square().mean() for rank in range(2)) / 2).backward()
                wrapped.finish_gradient_synchronization()
                optimizer.step()
            assert_same(optimizer.state_dict(), plain.state_dict())
            for mine, one in zip(module.parameters(), expected.parameters(), strict=True):
                assert torch.allclose(mine, one, rtol=1e-12, atol=1e-15), (saved_by, variant)
