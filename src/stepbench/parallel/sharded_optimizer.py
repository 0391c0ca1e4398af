"""An optimizer whose state is divided among the ranks.

Data parallelism keeps the optimizer's state (for Adam twice the parameters) on every rank, although every rank computes
the same from it. Here each rank keeps and updates its part of the parameters, and the ranks exchange the results:
1/ranks of the state, for one more message in each step. A step goes in stages: while the updates of one travel, the
next is computed.

Source: Rajbhandari et al. 2019, ZeRO (arXiv:1910.02054), sections 5.1 and 5.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import Parameter
from torch.optim import Optimizer

from stepbench.parallel import optimizer_state
from stepbench.parallel.bucket import MIB
from stepbench.parallel.communicator import Communicator, Pending
from stepbench.parallel.flat_shards import FlatShards
from stepbench.parallel.gradient_norm import local_norm, over_ranks
from stepbench.parallel.owned_parameters import OwnedParameters
from stepbench.parallel.pieces import Partition, Piece
from stepbench.parallel.replica import Synchronizes
from stepbench.parallel.traffic import Traffic

BROADCAST, REDUCE_SCATTER = "broadcast", "reduce_scatter"
VARIANTS = (BROADCAST, REDUCE_SCATTER)

# These look at a parameter as a matrix, or at all of them as one vector.
_NOT_ELEMENTWISE = ("Adafactor", "Muon", "LBFGS", "SparseAdam")


class ShardedOptimizer(Synchronizes, Optimizer):
    """`optimizer_cls`, with its state divided among the ranks; used as the optimizer itself.

    Of the variant `broadcast` the module's wrapper decides when gradients travel; `no_sync()` here changes nothing.

    Args:
        params: parameters, or groups of them, the same on every rank; overwritten with those of rank 0, and moved into
            flat buffers. One that does not require a gradient now is left alone, for good.
        optimizer_cls: the optimizer to shard.
        variant: `broadcast`: each rank owns whole parameters, balanced by bytes, and broadcasts them after the update;
            the gradients must have been synchronised. `reduce_scatter`: each rank owns an equal slice of every bucket.
            The optimizer itself takes the mean of the gradients, during the backward pass, and consumes them (`.grad`
            is None afterwards), so nobody else must synchronise them, and `clip_grad_norm` alone can clip them.
        bucket_mib: size of the messages (`broadcast`: at least; `reduce_scatter`: of a bucket).
        group: the process group, or None for all ranks.
        **kwargs: for `optimizer_cls`.

    Attributes:
        pieces: who owns what, of all groups and ranks.

    Raises:
        ValueError: an unknown variant, or an optimizer that cannot work on what a rank owns.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        optimizer_cls: type[Optimizer],
        *,
        variant: str = BROADCAST,
        bucket_mib: float = 25,
        group: dist.ProcessGroup | None = None,
        **kwargs: Any,
    ) -> None:
        _check(optimizer_cls, variant, bucket_mib)
        groups: Any = [
            {**each, "params": _listed(each["params"])} if isinstance(each, dict) else each for each in params
        ]
        flat = (each for group in groups for each in (group["params"] if isinstance(group, dict) else [group]))
        first: Any = next(flat, None)
        if first is None:
            raise ValueError("`params` must have at least one parameter, got none")
        self._communicator = Communicator((first[1] if isinstance(first, tuple) else first).device, group)
        self._partition: Partition
        if variant == BROADCAST:
            self._partition = OwnedParameters(self._communicator, bucket_mib * MIB)
        else:
            self._partition = FlatShards(self._communicator, bucket_mib * MIB, lambda: self._synchronizes)
        self.pieces: list[Piece] = []
        self._frozen: list[Tensor] = []
        # One optimizer for each stage, each with all groups, of which it has what this rank owns in its stage.
        self._make = lambda: optimizer_cls([{"params": []}], **kwargs)
        self._stages: list[Optimizer] = []
        super().__init__(groups, self._make().defaults)

    @property
    def stages(self) -> list[Optimizer]:
        """The optimizers that update what this rank owns."""
        return list(self._stages)

    @property
    def traffic(self) -> Traffic:
        """What this optimizer communicated, and how long it waited."""
        return self._communicator.traffic

    @property  # type: ignore[override]
    def state(self) -> dict[Any, Any]:
        """The state that this rank keeps, keyed by what it owns."""
        return {owned: state for stage in self._stages for owned, state in stage.state.items()}

    @state.setter
    def state(self, _: Any) -> None:
        # Optimizer.__init__ sets an empty one; ours is that of the stages.
        pass

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group as `Optimizer.add_param_group` does, on every rank; owners are chosen so that loads even out."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        self._frozen += [parameter for parameter in group["params"] if not parameter.requires_grad]
        pieces = self._partition.add([parameter for parameter in group["params"] if parameter.requires_grad])
        self.pieces += pieces
        while len(self._stages) < max((piece.stage + 1 for piece in pieces), default=1):
            stage = self._make()
            stage.param_groups.clear()
            for earlier in self.param_groups[:-1]:
                stage.add_param_group({**_hyperparameters(earlier), "params": []})
            self._stages.append(stage)
        for number, stage in enumerate(self._stages):
            local = [piece.local for piece in pieces if piece.local is not None and piece.stage == number]
            stage.add_param_group({**_hyperparameters(group), "params": local})

    def finish_gradient_synchronization(self) -> None:
        """Return when the gradients of what this rank owns are ready; `step` does it, if it was not called before."""
        self._refuse_inside_no_sync()
        self._partition.finish_gradients()

    @torch.no_grad()
    def clip_grad_norm(self, max_norm: float, norm_type: float = 2.0) -> Tensor:
        """Scale the gradients of all ranks so that their norm is at most `max_norm`; return the norm, a collective.

        Of the variant `reduce_scatter` nobody else can: the parameters' own gradients have been consumed.
        """
        self.finish_gradient_synchronization()
        if isinstance(self._partition, OwnedParameters):
            return torch.nn.utils.clip_grad_norm_(self._numbered(), max_norm, norm_type)
        owned = [piece.local for piece in self.pieces if piece.local is not None and piece.local.grad is not None]
        norms = torch.zeros(len(owned), dtype=torch.double, device=self._communicator.traffic.device)
        for index, each in enumerate(owned):
            norms[index] = local_norm(cast(Tensor, each.grad), norm_type)
        norm = over_ranks(local_norm(norms, norm_type), norm_type, self._communicator)
        torch.nn.utils.clip_grads_with_norm_(owned, max_norm, norm)
        return norm

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters of all ranks; a collective.

        Args:
            closure: computes the loss again, as for any optimizer.

        Returns:
            What the closure returned.

        Raises:
            RuntimeError: a parameter was unfrozen or converted after it had been handed over, or called inside
                `no_sync()`.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if any(parameter.requires_grad for parameter in self._frozen):
            raise RuntimeError("a parameter must be unfrozen before the optimizer gets it, or no rank owns it")
        self.finish_gradient_synchronization()
        self._partition.take_back()
        under_way: list[Pending] = []
        for number, stage in enumerate(self._stages):
            # Schedulers and users change our groups.
            for group, inner in zip(self.param_groups, stage.param_groups, strict=True):
                inner.update(_hyperparameters(group))
            stage.step()
            under_way += self._partition.publish(number)
        for pending in under_way:
            pending.wait()
        return loss

    def state_dict(self, *, to: int | None = None) -> dict[str, Any]:
        """Return the whole state, as the unsharded optimizer would, on the CPU; a collective.

        Args:
            to: the only rank that gets the state (the others get an empty one), or None for all.
        """
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        whole = optimizer_state.gather(self.pieces, self.state, self._communicator, to)
        numbers = {parameter: number for number, parameter in enumerate(self._numbered())}
        groups, first = [], 0
        for group in self.param_groups:
            count = len(group["params"])
            groups.append({**group, "params": list(range(first, first + count))})
            first += count
        found = {"state": {numbers[parameter]: state for parameter, state in whole.items()}, "param_groups": groups}
        for after in self._optimizer_state_dict_post_hooks.values():
            found = after(self, found) or found
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a whole state, saved on any number of ranks or by the unsharded optimizer.

        Args:
            state_dict: the same on every rank; each keeps its part, moved to its device.

        Raises:
            ValueError: it has other groups than this optimizer.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, state_dict) or state_dict
        saved = [len(group["params"]) for group in state_dict["param_groups"]]
        ours = [len(group["params"]) for group in self.param_groups]
        if saved != ours:
            raise ValueError(f"`state_dict` must have groups of {ours} parameters, got groups of {saved}")
        for group, other in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update(_hyperparameters(other))
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        whole = dict(zip(self._numbered(), (state_dict["state"].get(number) for number in numbers), strict=True))
        pieces = {piece.local: piece for piece in self.pieces if piece.local is not None}
        for stage in self._stages:
            local = [parameter for group in stage.param_groups for parameter in group["params"]]
            parts = {number: optimizer_state.cut(pieces[each], whole) for number, each in enumerate(local)}
            packed = stage.state_dict()["param_groups"]
            for inner, group in zip(packed, self.param_groups, strict=True):
                inner.update(_hyperparameters(group))
            stage.load_state_dict({"state": {n: part for n, part in parts.items() if part}, "param_groups": packed})
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def _numbered(self) -> list[Parameter]:
        """Return the parameters in the order in which a state dict numbers them."""
        return [parameter for group in self.param_groups for parameter in group["params"]]


def _check(optimizer_cls: type[Optimizer], variant: str, bucket_mib: float) -> None:
    if variant not in VARIANTS:
        raise ValueError(f"`variant` must be one of {', '.join(VARIANTS)}, got {variant!r}")
    refused = _NOT_ELEMENTWISE if variant == REDUCE_SCATTER else ("LBFGS",)
    if any(base.__name__ in refused for base in optimizer_cls.__mro__):
        raise ValueError(f"`optimizer_cls` must update what a rank owns by itself, got {optimizer_cls.__name__}")
    if not bucket_mib > 0:
        raise ValueError(f"`bucket_mib` must be positive, got {bucket_mib}")


def _hyperparameters(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def _listed(params: Any) -> list[Any]:
    """Return a group's parameters, which may be one, or a generator that can be read only once."""
    return [params] if isinstance(params, Tensor) else list(params)
