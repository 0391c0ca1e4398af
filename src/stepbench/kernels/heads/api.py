"""Heads by name."""

import importlib

import torch

from stepbench.kernels.heads.contract import Head, Loss, Range
from stepbench.kernels.heads.names import HEADS


def bind(name: str) -> Loss:
    """Return `loss(x, weight, targets)` of one implementation, for a model to hold; see `contract.Head`.

    Raises:
        ValueError: `name` is no implementation.
    """
    return _head(name).loss


def unsupported_reason(name: str, *, device: torch.device | str, dtype: torch.dtype) -> str | None:
    """Return why a head cannot run, or None if it can.

    Args:
        name: a name of `HEADS`.
        device: where the tensors would be.
        dtype: of the logits.

    Raises:
        ValueError: `name` is no implementation.
    """
    return _head(name).unsupported(torch.device(device), dtype)


def ranges(name: str) -> tuple[Range, ...]:
    """Return the ranges of tokens in which a head allocates alike, the fewest first; see `contract.Range`.

    Raises:
        ValueError: `name` is no implementation.
    """
    return _head(name).ranges


def _head(name: str) -> Head:
    if name not in HEADS:
        raise ValueError(f"`head` must be one of {', '.join(HEADS)}, got {name!r}")
    module, _, attribute = HEADS[name].partition(":")
    found: Head = getattr(importlib.import_module(module), attribute)
    return found
