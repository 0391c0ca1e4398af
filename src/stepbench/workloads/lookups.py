"""Look-ups past the end of a table, found on fake tensors, which have no values to be wrong.

A fake embedding takes any index, so that a model with 32 learned positions runs on fake tensors at every context. But
which positions are looked up follows from shapes alone: tensors of whole numbers that are computed from nothing but
whole numbers are computed for real beside the fake ones, and held against the tables that they index.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from stepbench.versions import TorchDispatchMode, real_tensors, tree_leaves, tree_map

MOST_ELEMENTS = 2**26  # of a tensor that is computed for real; above that it is not followed
_BY_DIM = (torch.ops.aten.index_select.default, torch.ops.aten.gather.default)


class BeyondTableError(IndexError):
    """An index lies outside of its table."""


class Lookups(TorchDispatchMode):
    """Raises a BeyondTableError where an index lies outside of its table; used inside a FakeTensorMode.

    What is computed from values that are not known is not followed, and not refused either.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values = WeakIdKeyDictionary()
        self._blind = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, hold its indices against its table, and follow the whole numbers that it returns."""
        kwargs = kwargs or {}
        if not self._blind:
            for dim_size, index in self._indices(func, args):
                _check(dim_size, index)
        result = func(*args, **kwargs)
        if not self._blind:
            self._follow(func, args, kwargs, result)
        return result

    def _indices(self, func: Any, args: Any) -> list[tuple[int, Tensor]]:
        """Return each known index with the number of rows of its table."""
        found: list[tuple[int, Any]] = []
        if func is torch.ops.aten.embedding.default:
            found = [(args[0].shape[0], args[1])]
        elif func is torch.ops.aten.index.Tensor:
            found = list(zip(args[0].shape, args[1], strict=False))
        elif func in _BY_DIM:
            found = [(args[0].shape[args[1]], args[2])]
        known = ((rows, self._values.get(each)) for rows, each in found if isinstance(each, Tensor))
        return [(rows, each) for rows, each in known if each is not None and each.dtype != torch.bool]

    def _follow(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        known = all(each in self._values for each in given)
        made = result if isinstance(result, Tensor) else None
        if known and made is not None and _is_whole(made) and made.numel() <= MOST_ELEMENTS:
            with real_tensors():
                self._values[made] = func(*self._real(args), **self._real(kwargs))
        elif func._schema.is_mutable and any(each in self._values for each in given):
            self._blind = True  # a value that was known is another now, and so may its views be

    def _real(self, given: Any) -> Any:
        return tree_map(lambda each: self._values[each] if isinstance(each, Tensor) else each, given)


def _is_whole(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex()


def _check(rows: int, index: Tensor) -> None:
    if not index.numel():
        return
    with real_tensors():
        low, high = int(index.min()), int(index.max())
    if low < -rows or high >= rows:
        raise BeyondTableError(f"index {high if high >= rows else low} is out of bounds of a table of {rows} rows")
