"""torch's own DistributedDataParallel, to be measured beside ours."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stepbench.parallel.replica import BUCKET_MIB, Group, Recipe, Replica, Strategy


def _build(
    module: nn.Module,
    recipe: Recipe,
    group: Group,
    *,
    bucket_mib: float = BUCKET_MIB,
    find_unused_parameters: bool = False,
) -> Replica:
    wrapped = DistributedDataParallel(
        module,
        process_group=group,
        bucket_cap_mb=bucket_mib,
        gradient_as_bucket_view=True,
        broadcast_buffers=False,
        find_unused_parameters=find_unused_parameters,
    )
    return Replica(wrapped, recipe.cls(module.parameters(), **recipe.options))


STRATEGY = Strategy(_build, looks_at_values=True)
