"""What the ranks of `test_encoder_decoder.py` run beside the experiment's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn

from stepbench.workloads import epochs_on_ranks


def compare_parameters(*, setting: dict[str, Any], drift: float) -> dict[str, Any]:
    """Hold two ranks' parameters against each other; rank 1's are off by `drift`."""
    module = nn.Linear(3, 3)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    with torch.no_grad():
        module.weight[1, 1] += drift * distributed.get_rank()
    epochs_on_ranks.check_equal(module)
    return {}
