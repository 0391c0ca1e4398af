"""What every implementation of head and loss agrees on: its inputs, its result, and how it says that it cannot run.

Letters of shapes: N tokens, C width of the hidden states, V vocabulary.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from stepbench.kernels.contract import name_of

IGNORED = -100  # a target that counts for nothing, as in torch.nn.functional.cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Range:
    """Numbers of tokens for which a head runs the same operators, of sizes that are affine in the tokens.

    Attributes:
        most_tokens: up to which, from where the range before it ends; None is no bound.
        batches: two from which sizes at any other can be told; with a batch of 1 torch makes fewer copies.
        contexts: two of the same kind, far apart, so that an attention that loops over tiles gives itself away.
        within: a context in which the head allocates there as it does in this range.
    """

    most_tokens: int | None = None
    batches: tuple[int, int] = (2, 3)
    contexts: tuple[int, int] = (64, 1024)  # a GPT-2 has no more positions
    within: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Head:
    """One way to compute head and loss.

    Attributes:
        loss: takes hidden states `[..., C]`, the head's weight `[V, C]` and int64 targets `[...]`; returns the mean
            cross-entropy of the targets that are not `IGNORED`, in nats, a scalar in float32 (float64 for float64).
            Hidden states and weight get a gradient, once. Under autocast, logits have the autocast dtype.
        unsupported: takes a device and the dtype of the logits; returns None, or a sentence that says what is missing.
        ranges: of tokens, the fewest first.
    """

    loss: Loss
    unsupported: Callable[[torch.device, torch.dtype], str | None]
    ranges: tuple[Range, ...] = (Range(),)


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of the logits: autocast's where it is on, else that of the hidden states."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def wrong_dtype(name: str, dtype: torch.dtype, dtypes: Sequence[torch.dtype]) -> str | None:
    """Return a sentence if the dtype is none of `dtypes`."""
    if dtype in dtypes:
        return None
    return f"the head {name} needs {', '.join(map(name_of, dtypes))}, got {name_of(dtype)}"
