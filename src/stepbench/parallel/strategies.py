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

import importlib
from collections.abc import Mapping
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from stepbench.parallel.names import STRATEGIES
from stepbench.parallel.replica import Group, Recipe, Replica, Strategy


def strategy(name: str) -> Strategy:
    """Return the strategy of that name; its module is imported when it is first asked for.

    Raises:
        ValueError: there is none.
    """
    if name not in STRATEGIES:
        raise ValueError(f"`name` must be one of {', '.join(STRATEGIES)}, got {name!r}")
    module, _, attribute = STRATEGIES[name].partition(":")
    return cast(Strategy, getattr(importlib.import_module(module), attribute))


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
        name: one of `stepbench.parallel.names.STRATEGIES`.
        module: on its device; taken over.
        optimizer_cls: the optimizer to use, or to shard.
        optimizer_options: its keyword arguments.
        group: the process group, or None for all ranks.
        **options: the strategy's own: `bucket_mib` (bucketed, sharded_broadcast, sharded_reduce_scatter, torch_ddp,
            torch_zero), `compute_dtype` (fsdp, torch_fsdp2), `prefetch` and `sharded` (fsdp), `find_unused_parameters`
            (torch_ddp, which raises otherwise where a parameter has no gradient).

    Raises:
        ValueError: an unknown strategy, or an option that it does not have.
    """
    chosen = strategy(name)
    known = chosen.options
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"`options` of {name} must be among {', '.join(known) or 'none'}, got {', '.join(unknown)}")
    return chosen.build(module, Recipe(optimizer_cls, dict(optimizer_options or {})), group, **options)
