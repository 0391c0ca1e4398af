"""What the ranks of `test_equality.py` run: every strategy in every situation, against a single process."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tests.parallel.sample_modules import Branches, ManyDtypes, Tangle, language_loss, tokens
from torch import Tensor, nn
from torch import distributed as dist

from stepbench.parallel.replica import Replica
from stepbench.parallel.strategies import parallelize

BATCH = 3  # of each rank
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    # What makes a parameter that should have been skipped visible: momentum and decay move it without a gradient.
    "adamw": (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.1, "eps": 1e-4}),
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
}
# A step's backward passes, as what each is given: (loss of this rank's or of all ranks' part, weight of the loss).
Pass = Callable[[nn.Module, int], Tensor]


def situations(world: int) -> dict[str, tuple[Callable[[], nn.Module], list[list[Pass]], str]]:
    """Return module, the backward passes of each step, and optimizer, by name; `part` -1 is the joined batch."""
    x, y = tokens(steps=6, batch=BATCH * world)

    def language(step: int, *, weight: float = 1.0, use_sometimes: bool = True) -> Pass:
        def loss(model: nn.Module, part: int) -> Tensor:
            rows = slice(None) if part < 0 else slice(part * BATCH, (part + 1) * BATCH)
            return weight * language_loss(model, x[step][rows], y[step][rows], use_sometimes=use_sometimes)

        return loss

    def dtypes(step: int) -> Pass:
        data = torch.randn(6, world * BATCH, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)[step]

        def loss(model: nn.Module, part: int) -> Tensor:
            return model(data if part < 0 else data[part * BATCH : (part + 1) * BATCH]).square().mean()

        return loss

    return {
        "every step on other data": (Tangle, [[language(step)] for step in range(4)], "adamw"),
        "momentum": (Tangle, [[language(step)] for step in range(4)], "sgd"),
        "a parameter unused in some steps": (
            Tangle,
            [[language(step, use_sometimes=step % 2 == 0)] for step in range(6)],
            "adamw",
        ),
        "accumulation": (Tangle, [[language(3 * i + j, weight=1 / 3) for j in range(3)] for i in range(2)], "adamw"),
        "a parameter unused in the last backward pass of a step": (
            Tangle,
            [[language(2 * i, weight=0.5), language(2 * i + 1, weight=0.5, use_sometimes=False)] for i in range(3)],
            "adamw",
        ),
        "several dtypes": (ManyDtypes, [[dtypes(step)] for step in range(3)], "sgd"),
    }


def everything(strategies: list[list[Any]], branch_steps: int) -> dict[str, Any]:
    """Return the reports of all comparisons, by name; one launch, because starting ranks costs seconds."""
    for_branches = [entry for entry in strategies if entry[0] != "fsdp"]
    return {
        "equality": equality(strategies),
        "zeroed": equality(for_branches, set_to_none=False, only=["every step on other data", "accumulation"]),
        "unsynchronised": equality([["none", {}]], only=["every step on other data"]),
        "branches": branches(for_branches, branch_steps),
    }


def equality(
    strategies: list[list[Any]], *, set_to_none: bool = True, only: list[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Return for each situation and strategy how far it is from the single process, and from whom it differs at all."""
    world, rank = dist.get_world_size(), dist.get_rank()
    report: dict[str, dict[str, Any]] = {}
    for situation, (make, steps, optimizer) in situations(world).items():
        if only is not None and situation not in only:
            continue
        torch.manual_seed(0)
        module = make()
        joined = single_process(module, steps, optimizer, parts=[-1])
        averaged = single_process(module, steps, optimizer, parts=list(range(world)))
        noise = distance(joined, averaged)
        for name, options in strategies:
            with torch.random.fork_rng():
                torch.manual_seed(rank)  # every rank begins with other values
                mine = perturbed(module) if rank else copy.deepcopy(module)
            replica = parallelize(name, mine, *OPTIMIZERS[optimizer], **options)
            for passes in steps:
                train(replica, passes, rank, set_to_none=set_to_none)
            found = replica.full_parameters()
            report.setdefault(situation, {})[label(name, options)] = {
                "from_joined": distance(joined, found),
                "from_averaged": distance(averaged, found),
                "noise": noise,
                "ranks_agree": agree(found),
                "without_gradient": sorted(unmoved(module, found)),
            }
    return report


def label(name: str, options: dict[str, Any]) -> str:
    """Return a strategy with its options in one line."""
    return " ".join([name, *(f"{key}={value}" for key, value in options.items())])


def train(replica: Replica, passes: list[Pass], rank: int, *, set_to_none: bool = True) -> None:
    """Do one step of a replica, communicating in its last backward pass alone."""
    replica.optimizer.zero_grad(set_to_none=set_to_none)
    for number, loss in enumerate(passes):
        with replica.no_sync() if number < len(passes) - 1 else contextlib.nullcontext():
            loss(replica.module, rank).backward()
    replica.finish_gradient_synchronization()
    replica.optimizer.step()


def single_process(
    module: nn.Module, steps: list[list[Pass]], optimizer: str, *, parts: list[int]
) -> dict[str, Tensor]:
    """Return the parameters that one process ends with: on the joined batch, or averaging the parts' gradients."""
    module = copy.deepcopy(module)
    parameters = list(module.parameters())
    cls, options = OPTIMIZERS[optimizer]
    stepper = cls(parameters, **options)
    for passes in steps:
        means: list[Tensor | None] = [None] * len(parameters)
        for part in parts:
            stepper.zero_grad()
            for loss in passes:
                loss(module, part).backward()
            for index, parameter in enumerate(parameters):
                if parameter.grad is not None:
                    mine = parameter.grad / len(parts)
                    means[index] = mine if means[index] is None else means[index] + mine
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad = mean
        stepper.step()
    return {name: each.detach().clone() for name, each in module.named_parameters(remove_duplicate=False)}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest difference between two sets of parameters, in units of their dtype's resolution."""
    assert one.keys() == other.keys(), (sorted(one), sorted(other))
    return max(
        ((one[name] - other[name]).abs().max() / (torch.finfo(one[name].dtype).eps * one[name].abs().max())).item()
        for name in one
    )


def agree(parameters: dict[str, Tensor]) -> bool:
    """Return whether all ranks hold the same bits."""
    flat = torch.cat([each.double().reshape(-1) for each in parameters.values()])
    everyones = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(everyones, flat)
    return all(torch.equal(flat, other) for other in everyones)


def unmoved(module: nn.Module, parameters: dict[str, Tensor]) -> Iterator[str]:
    """Yield the names of the parameters that are what they were in the beginning, to the bit."""
    for name, before in module.named_parameters(remove_duplicate=False):
        if torch.equal(before, parameters[name]):
            yield name


def perturbed(module: nn.Module) -> nn.Module:
    """Return a copy with other values everywhere, buffers included."""
    other = copy.deepcopy(module)
    with torch.no_grad():
        for each in (*other.parameters(), *other.buffers()):
            each.add_(torch.rand_like(each))
    return other


def branches(strategies: list[list[Any]], steps: int) -> dict[str, Any]:
    """Train `Branches` with each rank on a branch of its own choice in each step, and compare with a single process."""
    world, rank = dist.get_world_size(), dist.get_rank()
    generator = torch.Generator().manual_seed(5)
    data = torch.randn(steps, world, BATCH, 4, generator=generator, dtype=torch.float64)
    choices = torch.randint(0, 4, (steps, world), generator=generator).tolist()

    def passes(step: int) -> list[Pass]:
        return [lambda model, part: model(data[step, part], branch=choices[step][part]).square().mean()]

    torch.manual_seed(0)
    module = Branches()
    expected = single_process(module, [passes(step) for step in range(steps)], "adamw", parts=list(range(world)))
    report = {}
    for name, options in strategies:
        replica = parallelize(name, copy.deepcopy(module), *OPTIMIZERS["adamw"], **options)
        for step in range(steps):
            train(replica, passes(step), rank)
        found = replica.full_parameters()
        report[label(name, options)] = {"from_averaged": distance(expected, found), "ranks_agree": agree(found)}
    return report
