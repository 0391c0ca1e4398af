"""torch's own `fully_shard` (FSDP2), to be measured beside ours."""

from __future__ import annotations

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from stepbench.parallel.communicator import Communicator
from stepbench.parallel.data_parallel import device_of, start_equal
from stepbench.parallel.replica import Group, Recipe, Replica, Strategy
from stepbench.parallel.unit_plan import blocks


def _build(module: nn.Module, recipe: Recipe, group: Group, *, compute_dtype: torch.dtype | None = None) -> Replica:
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


STRATEGY = Strategy(_build, looks_at_values=True, sends_gradients_alone=False)
