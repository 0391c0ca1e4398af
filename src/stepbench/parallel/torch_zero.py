"""torch's own ZeroRedundancyOptimizer over our buckets, so that the optimizer alone differs from `sharded_broadcast`.

Importing torch's takes 0.7 s, which the cells of other strategies do not pay.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer

from stepbench.parallel.bucketed import BucketedDDP
from stepbench.parallel.replica import BUCKET_MIB, Group, Recipe, Replica, Strategy


def _build(module: nn.Module, recipe: Recipe, group: Group, *, bucket_mib: float = BUCKET_MIB) -> Replica:
    wrapped = BucketedDDP(module, bucket_mib=bucket_mib, group=group)
    optimizer = ZeroRedundancyOptimizer(
        list(module.parameters()),
        optimizer_class=recipe.cls,
        process_group=group,
        parameters_as_bucket_view=True,
        **recipe.options,
    )
    return Replica(wrapped, optimizer, (wrapped.traffic,))


STRATEGY = Strategy(_build, sends_gradients_alone=False)
