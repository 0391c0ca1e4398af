"""Sharding everything: each rank keeps a slice of every large weight, and gathers a weight only while it is used.

Parameters, gradients and optimizer state all shrink to 1/ranks. The price is communication: each weight is gathered for
the forward pass and again for the backward pass, and its gradient is reduce-scattered, half as much again as one
all-reduce moves. What is gathered next is known from the step before, so it travels while the current one computes.

How a gathered weight gets into a module and out of autograd's memory: during a module's forward its `weight` is an
instance attribute, which Python finds before the registered parameter (the piece). What autograd would keep of it for
the backward pass is replaced by a note (saved-tensor hooks), and reading the note gathers the weight again. So memory
is freed by nothing but the last reference going away.

Source: Zhao et al. 2023, PyTorch FSDP (arXiv:2304.11277); Rajbhandari et al. 2019, ZeRO (arXiv:1910.02054), 5.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer

from stepbench import versions
from stepbench.parallel.bucket import Bucket, by_kind
from stepbench.parallel.communicator import Communicator
from stepbench.parallel.data_parallel import device_of, refuse_unfrozen, start_equal
from stepbench.parallel.full_precision import keep
from stepbench.parallel.gradient_norm import ShardGradient
from stepbench.parallel.replica import Group, Recipe, Replica, Strategy, Synchronizes, with_plain_optimizer
from stepbench.parallel.traffic import Traffic
from stepbench.parallel.unit import Unit
from stepbench.parallel.unit_plan import SHARDED, PlannedUnit, plan
from stepbench.parallel.visit_order import VisitOrder
from stepbench.parallel.weight_use import WeightUse
from stepbench.versions import tree_map


class FSDP(Synchronizes, nn.Module):
    """A module whose matrices are sharded, each block's together; used as the data-parallel ones.

    Make the optimizer after wrapping, from `parameters()`: it must be one that works on each element by itself. All
    ranks must run the same modules in the same order, since they gather together; torch's FSDP asks the same. A weight
    is whole only while the module that holds it is called, so nobody else may compute with it. Inside
    `no_sync()` whole gradients are kept, which costs the memory of all of them, in the masters' dtype. The norm of a
    gradient is that of the whole one and a collective, so `torch.nn.utils.clip_grad_norm_` is called on all ranks.

    Args:
        module: any module, on its device. Its parameters and buffers are overwritten with those of rank 0.
        compute_dtype: of the gathered weights, of the replicated parameters where they are used, and of floating-point
            inputs. The parameters themselves keep their dtype, and so do their gradients. None: no casts.
        prefetch: how many units to gather ahead of the one in use; 0 for none.
        group: the process group, or None for all ranks.
        sharded: classes of modules whose own parameters of two dims or more are sharded; all else is replicated.
        full_precision: classes of modules, such as norms, that compute in the dtype of their parameters whatever
            `compute_dtype` is.

    Attributes:
        sharded_ratio: the share of the parameters' elements that is sharded.

    Raises:
        ValueError: the ranks hold different modules, `prefetch` is negative, nothing would be sharded, or an Embedding
            asks for `max_norm` or sparse gradients, which need the whole weight.
    """

    def __init__(
        self,
        module: nn.Module,
        compute_dtype: torch.dtype | None = None,
        *,
        prefetch: int = 1,
        group: dist.ProcessGroup | None = None,
        sharded: tuple[type[nn.Module], ...] = SHARDED,
        full_precision: tuple[type[nn.Module], ...] = (),
    ) -> None:
        if prefetch < 0:
            raise ValueError(f"`prefetch` must be 0 or more, got {prefetch}")
        super().__init__()
        self.module = module
        self.communicator = Communicator(device_of(module), group)
        self._compute_dtype = compute_dtype
        self._forward_order: VisitOrder[Unit] = VisitOrder(prefetch)
        self._backward_order: VisitOrder[Unit] = VisitOrder(prefetch)
        self._in_flight: Unit | None = None
        self._records = False
        start_equal(module, self.communicator)
        units = plan(module, sharded)
        elements = sum(weight.numel() for planned in units for weight in planned.weights)
        self.sharded_ratio = elements / max(1, sum(parameter.numel() for parameter in module.parameters()))
        if not units:
            raise ValueError(_nothing_to_shard(module, sharded))
        self._units = [(planned, self._shard(planned)) for planned in units]
        pieces = {piece for _, unit in self._units for piece in unit.pieces}
        named = module.named_parameters(remove_duplicate=False)
        self._replicated = {name: each for name, each in named if each not in pieces}
        self._frozen = {name: each for name, each in self._replicated.items() if not each.requires_grad}
        trained = dict.fromkeys(each for each in self._replicated.values() if each.requires_grad)
        self._buckets = [Bucket(same_kind, self.communicator) for same_kind in by_kind(trained)]
        self._substitute(module, full_precision)

    def _shard(self, planned: PlannedUnit) -> Unit:
        """Return a unit in the place of whole weights, which are let go."""
        unit = Unit(planned.weights, self.communicator, self._compute_dtype)
        for piece, holders in zip(unit.pieces, planned.holders, strict=True):
            for holder in holders:
                setattr(holder.module, holder.attribute, piece)
        planned.weights.clear()
        return unit

    def _substitute(self, module: nn.Module, full_precision: tuple[type[nn.Module], ...]) -> None:
        """Have every module see whole weights, in the compute dtype, while it runs."""
        uses: dict[nn.Module, WeightUse] = {}
        for planned, unit in self._units:
            for index, holders in enumerate(planned.holders):
                for holder in holders:
                    use = uses.setdefault(
                        holder.module, WeightUse(self._gather, self._expect, self._collect, self._compute_dtype)
                    )
                    use.add_weight(holder.attribute, unit, index)
            for user in planned.users:
                user.register_forward_hook(lambda *_, unit=unit: self._after_forward(unit), always_call=True)
        if self._compute_dtype is not None:
            replicated = set(self._replicated.values())
            kept = [each for each in module.modules() if isinstance(each, full_precision)]
            keep(kept, self._compute_dtype)
            for each in set(module.modules()).difference(*(each.modules() for each in kept)):
                for attribute, parameter in each.named_parameters(recurse=False):
                    if parameter in replicated and parameter.is_floating_point():
                        use = uses.setdefault(
                            each, WeightUse(self._gather, self._expect, self._collect, self._compute_dtype)
                        )
                        use.add_cast(attribute)
        for each, use in uses.items():
            use.attach(each)

    @property
    def traffic(self) -> Traffic:
        """What was communicated; `wait_s("all_gather")` is exposed gather time."""
        return self.communicator.traffic

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module.

        Raises:
            RuntimeError: the module was converted to another dtype or moved after it had been wrapped.
        """
        if not _in_backward():
            self._forward_order.restart()
            self._backward_order.restart()
            for _, unit in self._units:
                unit.free()
                unit.take_back()
        if self._compute_dtype is not None:
            args, kwargs = tree_map(self._cast, (args, kwargs))
        before, self._records = self._records, torch.is_grad_enabled()
        try:
            return self.module(*args, **kwargs)
        finally:
            self._records = before

    def finish_gradient_synchronization(self) -> None:
        """Return when every gradient is the mean over the ranks; call it on all ranks after the backward pass.

        Raises:
            RuntimeError: called inside `no_sync()`, or a replicated parameter was unfrozen after it had been wrapped.
        """
        self._refuse_inside_no_sync()
        refuse_unfrozen(self._frozen)
        for _, unit in self._units:
            if unit.has_gradients:
                self._send(unit)
        for bucket in self._buckets:
            bucket.launch()
        for bucket in self._buckets:
            bucket.wait()
        for _, unit in self._units:
            unit.take_gradients()
            unit.begin_step()
        self._in_flight = None

    def gather_full_parameters(self) -> dict[str, Tensor]:
        """Return copies of all whole parameters under the names they had, tied ones under each; a collective."""
        full = {name: each.detach().clone() for name, each in self._replicated.items()}
        for names, unit in self._named_units():
            for weight, aliases in zip(unit.masters(), names, strict=True):
                full.update(dict.fromkeys(aliases, weight))
        return full

    @torch.no_grad()
    def load_full_parameters(self, full: Mapping[str, Tensor]) -> None:
        """Take over whole parameters, as `gather_full_parameters` returns them, the same on every rank.

        Raises:
            KeyError: one is missing.
        """
        for name, parameter in self._replicated.items():
            parameter.copy_(full[name])
        for names, unit in self._named_units():
            unit.load([full[aliases[0]] for aliases in names])

    def _named_units(self) -> Iterator[tuple[list[list[str]], Unit]]:
        """Yield each unit with the names of its weights, of which a tied one has several."""
        paths = {each: f"{path}." if path else "" for path, each in self.module.named_modules(remove_duplicate=False)}
        for planned, unit in self._units:
            yield [[paths[each.module] + each.attribute for each in held] for held in planned.holders], unit

    # -- when --------------------------------------------------------------------------------------------------------

    def _gather(self, unit: Unit) -> Tensor:
        """Return a unit's weights; launch the gathering of those that come next."""
        backward = _in_backward()
        order = self._backward_order if backward else self._forward_order
        before = order.current
        if backward and before is not None and before is not unit and not before.awaits_gradients:
            # Nothing else would free frozen weights in the backward pass.
            before.free()
        following = order.visit(unit)
        full = unit.gathered()
        for each in following:
            each.start_gather()
        return full

    def _expect(self, unit: Unit, index: int) -> None:
        # What is not recorded within a forward pass that is will be computed again (reentrant checkpointing).
        if torch.is_grad_enabled() or self._records:
            unit.expect(index, recomputing=_in_backward())

    def _after_forward(self, unit: Unit) -> None:
        if _in_backward():
            return
        # The last one of the forward pass is the first of the backward pass.
        if not (torch.is_grad_enabled() and self._forward_order.is_last(unit)):
            unit.free()

    def _collect(self, unit: Unit, index: int, gradient: Tensor) -> None:
        unit.collect(index, gradient, accumulating=not self._synchronizes)
        if not unit.awaits_gradients:
            unit.free()
            if self._synchronizes:
                self._send(unit)

    def _send(self, unit: Unit) -> None:
        """Launch a unit's reduce-scatter; the one before must have arrived, or whole gradients would pile up."""
        if self._in_flight is not None:
            self._in_flight.take_gradients()
        unit.send_gradients()
        self._in_flight = unit

    def _cast(self, value: Any) -> Any:
        return value.to(self._compute_dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _nothing_to_shard(module: nn.Module, sharded: tuple[type[nn.Module], ...]) -> str:
    """Return what to do about a module of which nothing would be sharded."""
    matrices = {
        type(each).__name__: None
        for each in module.modules()
        if any(parameter.dim() >= 2 for parameter in each.parameters(recurse=False))
    }
    wanted = ", ".join(each.__name__ for each in sharded) or "none"
    there = ", ".join(matrices) or "no class"
    return f"`sharded` must name classes that hold a matrix to shard, got {wanted}; in this module {there} do"


def _in_backward() -> bool:
    return versions.in_backward()


def _hand_over_slices(optimizer: Optimizer, *_: Any) -> None:
    """Give an optimizer plain tensors, which cost nothing each time they are computed with."""
    for group in optimizer.param_groups:
        for piece in group["params"]:
            if isinstance(piece.grad, ShardGradient):
                piece.grad = piece.grad.detach()


def _build(
    module: nn.Module,
    recipe: Recipe,
    group: Group,
    *,
    compute_dtype: torch.dtype | None = None,
    prefetch: int = 1,
    sharded: tuple[type[nn.Module], ...] = SHARDED,
) -> Replica:
    wrapped = FSDP(module, compute_dtype, prefetch=prefetch, group=group, sharded=sharded)
    replica = with_plain_optimizer(wrapped, recipe)
    replica.optimizer.register_step_pre_hook(_hand_over_slices)
    return replica


STRATEGY = Strategy(_build, sends_gradients_alone=False)
