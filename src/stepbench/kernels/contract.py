"""What every implementation of attention agrees on: its inputs, its answer, and how it says that it cannot run.

Letters of shapes, throughout this package:

    B    batch                         Tq   number of queries
    H    heads of the queries          Tk   number of keys
    Hkv  heads of keys and values      D    head dim
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

Answer = Tensor | tuple[Tensor, Tensor]

MIN_HEAD_DIM, MAX_HEAD_DIM = 8, 256
SIXTEEN_BIT = (torch.bfloat16, torch.float16)
UP_TO_SINGLE = (torch.float32, *SIXTEEN_BIT)
UP_TO_DOUBLE = (torch.float64, *UP_TO_SINGLE)


class UnsupportedAttention(ValueError):
    """Raised where an implementation is asked for something that it, or this device, cannot do."""


class NoSecondDerivative(NotImplementedError):
    """Raised where a gradient of a hand-written backward pass is differentiated once more."""

    def __init__(self, implementation: str):
        super().__init__(
            f"{implementation} has no second derivative: its gradients cannot be differentiated; "
            "impl='reference' and impl='naive' can"
        )


@dataclass(frozen=True)
class Case:
    """What decides whether an implementation can run, without the tensors.

    Attributes:
        grouped: whether several query heads share a key head (H > Hkv).
    """

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    q_len: int
    k_len: int
    grouped: bool
    is_causal: bool
    return_lse: bool

    @property
    def has_blind_rows(self) -> bool:
        """Tell whether some queries see no key: the causal mask ends at the last key, so the first Tq − Tk rows do."""
        return self.is_causal and self.q_len > self.k_len


@dataclass(frozen=True)
class Implementation:
    """One way to compute attention.

    Attributes:
        call: takes q, k, v and the keywords is_causal, scale, return_lse; all have been validated.
        unsupported: takes a Case; returns None, or a sentence that says what is missing.
    """

    call: Callable[..., Answer]
    unsupported: Callable[[Case], str | None]


def name_of(dtype: torch.dtype) -> str:
    """Return "bfloat16" for torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


def wrong_dtype(name: str, case: Case, dtypes: Sequence[torch.dtype]) -> str | None:
    """Return a sentence if the case's dtype is none of `dtypes`."""
    if case.dtype in dtypes:
        return None
    return f"{name} needs {', '.join(name_of(dtype) for dtype in dtypes)}, got {name_of(case.dtype)}"


def needs_cuda(name: str, case: Case) -> str | None:
    """Return a sentence if the case's device is no CUDA device, or one that this machine has not."""
    if case.device.type != "cuda":
        return f"{name} needs a CUDA device, got {case.device.type}"
    return None if torch.cuda.is_available() else f"{name} needs a CUDA device, got a machine without one"


def by_dtype_alone(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which products run in the dtype of their operands, inside `torch.autocast` too.

    Autocast would round the operands of a hand-written algorithm to 16 bits between its steps, in the forward pass
    alone, since a backward pass usually runs outside of it.
    """
    # Nothing where autocast is off: torch.compile keeps no graph for another process in which it is switched.
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def visible_keys(q_len: int, k_len: int, device: torch.device) -> Tensor:
    """Return the causal mask, True where a query sees a key: bool [Tq, Tk].

    The mask is aligned at the end: the last query sees every key, and query i the keys up to i + Tk − Tq.
    """
    rows = torch.arange(q_len, device=device)[:, None]
    columns = torch.arange(k_len, device=device)[None, :]
    return columns <= rows + (k_len - q_len)
