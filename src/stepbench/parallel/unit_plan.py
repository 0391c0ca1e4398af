"""Which weights of a module are sharded, and which of them together."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

SHARDED: tuple[type[nn.Module], ...] = (nn.Linear, nn.Embedding)
_WITHOUT_FORWARD = (nn.ModuleList, nn.ModuleDict)
_CONTAINERS = (*_WITHOUT_FORWARD, nn.Sequential)


@dataclass(frozen=True)
class Holder:
    """A place where a weight is registered."""

    module: nn.Module
    attribute: str


@dataclass
class PlannedUnit:
    """Weights to gather together.

    Attributes:
        weights: the whole weights.
        holders: for each of them, the modules that hold it; several if it is tied.
        users: the modules after whose forward the weights are not needed any more.
    """

    weights: list[Tensor] = field(default_factory=list)
    holders: list[list[Holder]] = field(default_factory=list)
    users: list[nn.Module] = field(default_factory=list)


def plan(module: nn.Module, sharded: tuple[type[nn.Module], ...] = SHARDED) -> list[PlannedUnit]:
    """Return the units of a module.

    The weights of all sharded modules inside one element of a ModuleList, Sequential or ModuleDict (the outermost: a
    transformer's block) form a unit. Every other weight is a unit of its own, and so is one that is tied across blocks.
    A weight that a module of another class holds as well stays whole.

    Args:
        module: the whole.
        sharded: classes whose parameters of two dims or more are weights to shard. Their modules must be the only ones
            that compute with them, in their own forward.

    Raises:
        ValueError: an Embedding asks for `max_norm` or sparse gradients.
    """
    holders: dict[Tensor, list[Holder]] = {}
    for each in module.modules():
        for attribute, parameter in each.named_parameters(recurse=False):
            holders.setdefault(parameter, []).append(Holder(each, attribute))
    block_of = blocks(module)
    units: dict[Hashable, PlannedUnit] = {}
    for weight, held in holders.items():
        if weight.dim() < 2 or not all(_is_shardable(holder, sharded) for holder in held):
            continue
        within = {block_of.get(holder.module) for holder in held}
        block = within.pop() if len(within) == 1 else None
        unit = units.setdefault((block or weight, weight.dtype), PlannedUnit())
        unit.weights.append(weight)
        unit.holders.append(held)
        unit.users = [block] if block is not None else [holder.module for holder in held]
    return list(units.values())


def blocks(module: nn.Module) -> dict[nn.Module, nn.Module]:
    """Return for each module the outermost element of a container that it is or stands in, and that can be called."""
    found: dict[nn.Module, nn.Module] = {}
    for container in module.modules():
        if not isinstance(container, _CONTAINERS):
            continue
        for element in container.children():
            # A list of lists has no forward of its own, after which its weights could be let go.
            if isinstance(element, _WITHOUT_FORWARD):
                continue
            for inner in element.modules():
                found.setdefault(inner, element)
    return found


def _is_shardable(holder: Holder, sharded: tuple[type[nn.Module], ...]) -> bool:
    module = holder.module
    # nn.MultiheadAttention reads the weight of this one without calling it.
    if not isinstance(module, sharded) or isinstance(module, NonDynamicallyQuantizableLinear):
        return False
    if isinstance(module, nn.Embedding) and (module.max_norm is not None or module.sparse):
        raise ValueError(f"`module` must not have an Embedding with max_norm or sparse gradients, got {module}")
    return True
