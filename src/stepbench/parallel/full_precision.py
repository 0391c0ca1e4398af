"""Modules that compute in the dtype of their own parameters, whatever the modules around them compute in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from stepbench.versions import tree_map


def keep(modules: Iterable[nn.Module], outside: torch.dtype) -> None:
    """Have modules compute in the dtype of their parameters, and return their results in another.

    Args:
        modules: each with floating-point parameters of one dtype, such as norms; their floating-point inputs are cast.
        outside: of what they return.
    """
    for module in modules:
        own = next(parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
        module.register_forward_pre_hook(
            lambda _, positional, named, own=own: _cast((positional, named), own), with_kwargs=True
        )
        module.register_forward_hook(lambda _, given, result: _cast(result, outside))


def _cast(values: Any, dtype: torch.dtype) -> Any:
    def cast(each: Any) -> Any:
        return each.to(dtype) if isinstance(each, Tensor) and each.is_floating_point() else each

    return tree_map(cast, values)
