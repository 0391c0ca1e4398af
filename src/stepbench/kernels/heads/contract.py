"""What every implementation of head and loss agrees on: its inputs, its result, and how it says that it cannot run.

Letters of shapes: N tokens, C width of the hidden states, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stepbench.kernels.contract import name_of

IGNORED = -100  # a target that counts for nothing, as in torch.nn.functional.cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Head:
    """One way to compute head and loss.

    Attributes:
        loss: takes hidden states `[..., C]`, the head's weight `[V, C]` and int64 targets `[...]`; returns the mean
            cross-entropy of the targets that are not `IGNORED`, in nats, a scalar in float32 (float64 for float64).
            Hidden states and weight get a gradient, once. Under autocast, logits have the autocast dtype.
        unsupported: takes a device and the dtype of the logits; returns None, or a sentence that says what is missing.
    """

    loss: Loss
    unsupported: Callable[[torch.device, torch.dtype], str | None]


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of the logits: autocast's where it is on, else that of the hidden states."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def wrong_dtype(name: str, dtype: torch.dtype, dtypes: Sequence[torch.dtype]) -> str | None:
    """Return a sentence if the dtype is none of `dtypes`."""
    if dtype in dtypes:
        return None
    return f"the head {name} needs {', '.join(map(name_of, dtypes))}, got {name_of(dtype)}"
