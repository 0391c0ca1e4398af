"""The sharded optimizer whose ranks own equal slices of buckets; it synchronises the gradients itself."""

from __future__ import annotations

from torch import nn

from stepbench.parallel.data_parallel import DataParallel
from stepbench.parallel.replica import BUCKET_MIB, Group, Recipe, Replica, Strategy
from stepbench.parallel.sharded_optimizer import REDUCE_SCATTER, ShardedOptimizer


def _build(module: nn.Module, recipe: Recipe, group: Group, *, bucket_mib: float = BUCKET_MIB) -> Replica:
    wrapped = DataParallel(module, group=group)
    optimizer = ShardedOptimizer(
        module.parameters(), recipe.cls, variant=REDUCE_SCATTER, bucket_mib=bucket_mib, group=group, **recipe.options
    )
    return Replica(wrapped, optimizer, (wrapped.traffic, optimizer.traffic))


STRATEGY = Strategy(_build, sends_gradients_alone=False)
