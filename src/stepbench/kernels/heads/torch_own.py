"""torch's own fused head and loss, `torch.nn.functional.linear_cross_entropy`, which torch has from 2.13 on.

It takes chunks of tokens as well, smaller ones, in an operator of its own: what the operator allocates meanwhile is not
part of predicted memory. Its loss has the dtype of the logits: bfloat16 has steps of 1/16 at 9 nats.
"""

import torch
from torch import Tensor

from stepbench import versions
from stepbench.kernels.contract import SIXTEEN_BIT, name_of
from stepbench.kernels.heads.contract import IGNORED, Head, wrong_dtype


def loss(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return torch's loss. See `contract.Head`."""
    return versions.linear_cross_entropy(x.flatten(0, -2), weight, targets.flatten(), ignored=IGNORED)


def unsupported(_: torch.device, dtype: torch.dtype) -> str | None:
    """Tell why it cannot run: torch's version, or the dtype."""
    if not versions.HAS_LINEAR_CROSS_ENTROPY:
        return f"the head torch needs torch 2.13 or newer, got {torch.__version__}"
    if dtype in SIXTEEN_BIT:
        return f"the head torch rounds the loss to {name_of(dtype)}, got logits of that dtype"
    return wrong_dtype("torch", dtype, (torch.float64, torch.float32))


HEAD = Head(loss, unsupported)
