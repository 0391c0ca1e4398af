"""Every way of training on several ranks, by name: ours, and torch's own beside them.

    replica = parallelize("bucketed", module, torch.optim.AdamW, {"lr": 1e-3}, bucket_mib=25)
    loss(replica.module(batch)).backward()
    replica.finish_gradient_synchronization()
    replica.optimizer.step()

Where torch's own has settings that cost it time or memory by default and ours has not, the better one is taken: its
gradients are views into the buckets, its sharded optimizer's parameters too, and buffers are not broadcast in each
forward pass.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from stepbench.parallel.bucketed import BucketedDDP
from stepbench.parallel.communicator import Communicator
from stepbench.parallel.data_parallel import DataParallel, device_of, start_equal
from stepbench.parallel.flat import FlatDDP
from stepbench.parallel.fsdp import FSDP
from stepbench.parallel.naive import NaiveDDP
from stepbench.parallel.overlapped import OverlappedDDP
from stepbench.parallel.sharded_optimizer import BROADCAST, REDUCE_SCATTER, ShardedOptimizer
from stepbench.parallel.traffic import Traffic
from stepbench.parallel.unit_plan import blocks

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

Group = dist.ProcessGroup | None
BUCKET_MIB = 25.0  # torch's default as well


@dataclass(frozen=True)
class Replica:
    """A module and its optimizer on this rank, as a strategy has set them up.

    Attributes:
        module: what to call.
        optimizer: what to step.
        traffic: the counters of our strategies (the module's, the optimizer's); empty for torch's, which have none.
    """

    module: nn.Module
    optimizer: Optimizer
    traffic: tuple[Traffic, ...] = ()

    def finish_gradient_synchronization(self) -> None:
        """Return when the gradients are ready for the optimizer; torch's own wait in the backward pass."""
        if isinstance(self.module, (DataParallel, FSDP)):
            self.module.finish_gradient_synchronization()
        if isinstance(self.optimizer, ShardedOptimizer):
            self.optimizer.finish_gradient_synchronization()

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Accumulate gradients without communication."""
        with contextlib.ExitStack() as stack:
            for each in (self.module, self.optimizer):
                if isinstance(each, (DataParallel, FSDP, DistributedDataParallel, ShardedOptimizer)):
                    stack.enter_context(each.no_sync())
            if hasattr(self.module, "set_requires_gradient_sync"):
                torchs = cast("FSDPModule", self.module)
                torchs.set_requires_gradient_sync(False)
                stack.callback(torchs.set_requires_gradient_sync, True)
            yield

    def tensors(self) -> dict[str, list[Tensor]]:
        """Return what this rank holds now: `parameters`, `gradients` and `optimizer_state`, shards and buffers alike.

        Some are views of the same memory; whoever counts bytes must count storages.
        """
        optimizers: list[Any] = [self.optimizer, *getattr(self.optimizer, "stages", [])]
        # torch's sharded optimizer keeps an ordinary one for its shard.
        optimizers += [inner for each in optimizers if (inner := getattr(each, "optim", None)) is not None]
        parameters = [*self.module.parameters()]
        parameters += [each for found in optimizers for group in found.param_groups for each in group["params"]]
        states = [state for found in optimizers for state in found.state.values()]
        return {
            "parameters": [_local(each) for each in parameters],
            "gradients": [_local(each.grad) for each in parameters if each.grad is not None],
            "optimizer_state": [_local(each) for state in states for each in state.values() if torch.is_tensor(each)],
        }

    def full_parameters(self) -> dict[str, Tensor]:
        """Return copies of the whole parameters under the names that they had before wrapping; a collective."""
        if isinstance(self.module, FSDP):
            return self.module.gather_full_parameters()
        inner = self.module
        if isinstance(inner, (DataParallel, DistributedDataParallel)):
            inner = inner.module
        found = {}
        for name, parameter in inner.named_parameters(remove_duplicate=False):
            whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            found[name] = whole.detach().clone()
        return found


def parallelize(
    name: str,
    module: nn.Module,
    optimizer_cls: type[Optimizer],
    optimizer_options: Mapping[str, Any] | None = None,
    *,
    group: Group = None,
    **options: Any,
) -> Replica:
    """Set up a module and its optimizer with a strategy; a collective.

    Args:
        name: one of `STRATEGIES`.
        module: on its device; taken over.
        optimizer_cls: the optimizer to use, or to shard.
        optimizer_options: its keyword arguments.
        group: the process group, or None for all ranks.
        **options: the strategy's own: `bucket_mib` (bucketed, sharded_broadcast, sharded_reduce_scatter, torch_ddp,
            torch_zero), `compute_dtype` (fsdp, torch_fsdp2), `prefetch` (fsdp).

    Raises:
        ValueError: an unknown strategy, or an option that it does not have.
    """
    if name not in STRATEGIES:
        raise ValueError(f"`name` must be one of {', '.join(STRATEGIES)}, got {name!r}")
    build = STRATEGIES[name]
    known = [each.name for each in inspect.signature(build).parameters.values() if each.kind is each.KEYWORD_ONLY]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"`options` of {name} must be among {', '.join(known) or 'none'}, got {', '.join(unknown)}")
    return build(module, Recipe(optimizer_cls, dict(optimizer_options or {})), group, **options)


@dataclass(frozen=True)
class Recipe:
    """How to make an optimizer."""

    cls: type[Optimizer]
    options: dict[str, Any]


def _local(tensor: Tensor) -> Tensor:
    """Return this rank's part of what torch's FSDP shards, and any other tensor itself."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _none(module: nn.Module, recipe: Recipe, group: Group) -> Replica:
    return _whole(DataParallel(module, group=group), recipe)


def _naive(module: nn.Module, recipe: Recipe, group: Group) -> Replica:
    return _whole(NaiveDDP(module, group=group), recipe)


def _flat(module: nn.Module, recipe: Recipe, group: Group) -> Replica:
    return _whole(FlatDDP(module, group=group), recipe)


def _overlapped(module: nn.Module, recipe: Recipe, group: Group) -> Replica:
    return _whole(OverlappedDDP(module, group=group), recipe)


def _bucketed(module: nn.Module, recipe: Recipe, group: Group, *, bucket_mib: float = BUCKET_MIB) -> Replica:
    return _whole(BucketedDDP(module, bucket_mib=bucket_mib, group=group), recipe)


def _torch_ddp(module: nn.Module, recipe: Recipe, group: Group, *, bucket_mib: float = BUCKET_MIB) -> Replica:
    wrapped = DistributedDataParallel(
        module, process_group=group, bucket_cap_mb=bucket_mib, gradient_as_bucket_view=True, broadcast_buffers=False
    )
    return Replica(wrapped, recipe.cls(module.parameters(), **recipe.options))


def _sharded_broadcast(module: nn.Module, recipe: Recipe, group: Group, *, bucket_mib: float = BUCKET_MIB) -> Replica:
    wrapped = BucketedDDP(module, bucket_mib=bucket_mib, group=group)
    optimizer = ShardedOptimizer(module.parameters(), recipe.cls, variant=BROADCAST, group=group, **recipe.options)
    return Replica(wrapped, optimizer, (wrapped.traffic, optimizer.traffic))


def _sharded_reduce_scatter(
    module: nn.Module, recipe: Recipe, group: Group, *, bucket_mib: float = BUCKET_MIB
) -> Replica:
    wrapped = DataParallel(module, group=group)
    optimizer = ShardedOptimizer(
        module.parameters(), recipe.cls, variant=REDUCE_SCATTER, bucket_mib=bucket_mib, group=group, **recipe.options
    )
    return Replica(wrapped, optimizer, (wrapped.traffic, optimizer.traffic))


def _torch_zero(module: nn.Module, recipe: Recipe, group: Group, *, bucket_mib: float = BUCKET_MIB) -> Replica:
    # Takes 0.7 s to import, which every rank of every other strategy would pay.
    from torch.distributed.optim import ZeroRedundancyOptimizer

    # Over our buckets, so that what differs from `sharded_broadcast` is the optimizer alone.
    wrapped = BucketedDDP(module, bucket_mib=bucket_mib, group=group)
    optimizer = ZeroRedundancyOptimizer(
        list(module.parameters()),
        optimizer_class=recipe.cls,
        process_group=group,
        parameters_as_bucket_view=True,
        **recipe.options,
    )
    return Replica(wrapped, optimizer, (wrapped.traffic,))


def _fsdp(
    module: nn.Module, recipe: Recipe, group: Group, *, compute_dtype: torch.dtype | None = None, prefetch: int = 1
) -> Replica:
    return _whole(FSDP(module, compute_dtype, prefetch=prefetch, group=group), recipe)


def _torch_fsdp2(
    module: nn.Module, recipe: Recipe, group: Group, *, compute_dtype: torch.dtype | None = None
) -> Replica:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    device = device_of(module)
    start_equal(module, Communicator(device, group))
    ranks = group or dist.group.WORLD
    assert ranks is not None  # noqa: S101 - torch.distributed has been started
    mesh = DeviceMesh.from_group(ranks, device.type)
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype)
    # The same blocks that ours takes as units; torch's makes one more unit of all that is left.
    for block in (each for each in dict.fromkeys(blocks(module).values()) if any(True for _ in each.parameters())):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy)
    return Replica(module, recipe.cls(module.parameters(), **recipe.options))


def _whole(wrapped: DataParallel | FSDP, recipe: Recipe) -> Replica:
    """Return our wrapper with an optimizer of its parameters that is not sharded by itself."""
    return Replica(wrapped, recipe.cls(wrapped.parameters(), **recipe.options), (wrapped.traffic,))


STRATEGIES: dict[str, Callable[..., Replica]] = {
    "none": _none,
    "naive": _naive,
    "flat": _flat,
    "overlapped": _overlapped,
    "bucketed": _bucketed,
    "torch_ddp": _torch_ddp,
    "sharded_broadcast": _sharded_broadcast,
    "sharded_reduce_scatter": _sharded_reduce_scatter,
    "torch_zero": _torch_zero,
    "fsdp": _fsdp,
    "torch_fsdp2": _torch_fsdp2,
}
