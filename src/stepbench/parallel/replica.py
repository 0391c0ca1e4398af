"""What a strategy makes of a module and its optimizer, and how a strategy says what it can do."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from stepbench.parallel.traffic import Traffic

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

Group = dist.ProcessGroup | None
BUCKET_MIB = 25.0  # torch's default as well


class Synchronizes:
    """Gradients of a backward pass travel, except inside `no_sync()`."""

    _synchronizes = True

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Accumulate gradients on this rank alone; the next backward pass outside communicates their sum."""
        before, self._synchronizes = self._synchronizes, False
        try:
            yield
        finally:
            self._synchronizes = before

    def finish_gradient_synchronization(self) -> None:
        """Return when the gradients are ready for the optimizer; a collective."""
        raise NotImplementedError

    def _refuse_inside_no_sync(self) -> None:
        if not self._synchronizes:
            raise RuntimeError("finish_gradient_synchronization() must be called outside no_sync()")


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
        for each in (self.module, self.optimizer):
            if isinstance(each, Synchronizes):
                each.finish_gradient_synchronization()

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Accumulate gradients without communication."""
        with contextlib.ExitStack() as stack:
            for each in (self.module, self.optimizer):
                if isinstance(each, (Synchronizes, DistributedDataParallel)):
                    stack.enter_context(each.no_sync())
            if hasattr(self.module, "set_requires_gradient_sync"):
                torchs = cast("FSDPModule", self.module)
                torchs.set_requires_gradient_sync(False)
                stack.callback(torchs.set_requires_gradient_sync, True)
            yield

    def clip_grad_norm(self, max_norm: float, norm_type: float = 2.0) -> Tensor:
        """Scale the gradients of all ranks so that their norm is at most `max_norm`; return the norm, a collective.

        Call it after `finish_gradient_synchronization`. It is `torch.nn.utils.clip_grad_norm_`, which may be called
        instead, but for optimizers that have consumed the gradients of the parameters.
        """
        own = getattr(self.optimizer, "clip_grad_norm", None)
        if own is not None:
            return cast(Tensor, own(max_norm, norm_type))
        return nn.utils.clip_grad_norm_(self.module.parameters(), max_norm, norm_type)

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
        gather = getattr(self.module, "gather_full_parameters", None)
        if gather is not None:
            return cast("dict[str, Tensor]", gather())
        # torch's FSDP changes the module itself; the others wrap it.
        wraps = isinstance(self.module, (Synchronizes, DistributedDataParallel))
        inner = cast(nn.Module, self.module.module) if wraps else self.module
        found = {}
        for name, parameter in inner.named_parameters(remove_duplicate=False):
            whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            found[name] = whole.detach().clone()
        return found


@dataclass(frozen=True)
class Recipe:
    """How to make an optimizer."""

    cls: type[Optimizer]
    options: dict[str, Any]


@dataclass(frozen=True)
class Strategy:
    """One way of training on several ranks.

    Attributes:
        build: takes a module on its device, a `Recipe`, a process group and the strategy's own options as keywords;
            returns a `Replica`. A collective.
        looks_at_values: whether `build` or a step reads values of tensors, so that it cannot run on fake ones.
        sends_gradients_alone: whether nothing travels inside `no_sync`.
    """

    build: Callable[..., Replica]
    looks_at_values: bool = False
    sends_gradients_alone: bool = True

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the strategy's own options."""
        parameters = inspect.signature(self.build).parameters.values()
        return tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)


def with_plain_optimizer(wrapped: Any, recipe: Recipe) -> Replica:
    """Return a wrapper of ours with an ordinary optimizer of its parameters."""
    return Replica(wrapped, recipe.cls(wrapped.parameters(), **recipe.options), (wrapped.traffic,))


def _local(tensor: Tensor) -> Tensor:
    """Return this rank's part of what torch's FSDP shards, and any other tensor itself."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
