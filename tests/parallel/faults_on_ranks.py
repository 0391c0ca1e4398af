"""What the ranks of `test_faults.py` run."""

from __future__ import annotations

from typing import Any

import torch
from tests.parallel.launch_on_ranks import fault
from tests.parallel.sample_modules import Tangle, language_loss, tokens
from torch import distributed as dist

from stepbench.parallel.strategies import parallelize


def train_until_fault(*, strategy: str, options: dict[str, Any], how: str) -> None:
    """Train with a strategy; in the second step rank 1 fails in the middle of its backward pass."""
    module = Tangle(dtype=torch.float32)
    middle = module.blocks[1]
    replica = parallelize(strategy, module, torch.optim.AdamW, {"lr": 1e-2}, **options)
    x, y = tokens(steps=4, batch=2)
    for step in range(4):
        if step == 1 and dist.get_rank() == 1:
            middle.register_full_backward_hook(lambda *_: fault(how))
        replica.optimizer.zero_grad()
        language_loss(replica.module, x[step], y[step]).backward()
        replica.finish_gradient_synchronization()
        replica.optimizer.step()
