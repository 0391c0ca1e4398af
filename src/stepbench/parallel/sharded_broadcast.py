"""The sharded optimizer whose ranks own whole parameters and broadcast them, over buckets of gradients."""

from __future__ import annotations

from torch import nn

from stepbench.parallel.bucketed import BucketedDDP
from stepbench.parallel.replica import BUCKET_MIB, Group, Recipe, Replica, Strategy
from stepbench.parallel.sharded_optimizer import BROADCAST, ShardedOptimizer


def _build(module: nn.Module, recipe: Recipe, group: Group, *, bucket_mib: float = BUCKET_MIB) -> Replica:
    wrapped = BucketedDDP(module, bucket_mib=bucket_mib, group=group)
    optimizer = ShardedOptimizer(module.parameters(), recipe.cls, variant=BROADCAST, group=group, **recipe.options)
    return Replica(wrapped, optimizer, (wrapped.traffic, optimizer.traffic))


STRATEGY = Strategy(_build, sends_gradients_alone=False)
