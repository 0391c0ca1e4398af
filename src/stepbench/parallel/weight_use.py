"""Whole weights in a module while it runs, and nothing of them left in autograd's memory afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from stepbench import versions
from stepbench.parallel.unit import Unit

Gather = Callable[[Unit], Tensor]
Expect = Callable[[Unit, int], None]
Collect = Callable[[Unit, int, Tensor], None]


class _Note(NamedTuple):
    """What autograd keeps in the place of a whole weight, or of a view of one."""

    unit: Unit
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Outside(NamedTuple):
    """What autograd keeps of another tensor where hooks outside ours (checkpointing's, say) want to see it."""

    unpack: Callable[[Any], Tensor]
    packed: Any


class _Kept(NamedTuple):
    """Another tensor, with the check for changes in place that autograd leaves out where there are hooks."""

    tensor: Tensor
    version: int


class _WholeWeight(torch.autograd.Function):
    """From a piece to its whole weight; the gradient is handed over instead of returned."""

    @staticmethod
    def forward(ctx: Any, piece: Tensor, unit: Unit, index: int, collect: Collect) -> Tensor:
        ctx.unit, ctx.index, ctx.collect = unit, index, collect
        return unit.weight(index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None, None]:
        ctx.collect(ctx.unit, ctx.index, gradient)
        return None, None, None, None


class WeightUse:
    """What happens around the forward of one module.

    Args:
        gather: returns a unit's gathered buffer.
        expect: notes that a whole weight, which is trained, is used.
        collect: takes a whole weight's gradient.
        compute_dtype: of replicated parameters while the module runs, or None.
    """

    def __init__(self, gather: Gather, expect: Expect, collect: Collect, compute_dtype: torch.dtype | None) -> None:
        self._gather = gather
        self._expect = expect
        self._collect = collect
        self._compute_dtype = compute_dtype
        self._weights: list[tuple[str, Unit, int]] = []
        self._casts: list[str] = []
        self._entered: list[saved_tensors_hooks] = []

    def add_weight(self, attribute: str, unit: Unit, index: int) -> None:
        """Have the module see a whole weight under this name."""
        self._weights.append((attribute, unit, index))

    def add_cast(self, attribute: str) -> None:
        """Have the module see a replicated parameter in the compute dtype."""
        self._casts.append(attribute)

    def attach(self, module: nn.Module) -> None:
        """Register the hooks."""
        module.register_forward_pre_hook(self._before)
        module.register_forward_hook(self._after, always_call=True, prepend=True)

    def _before(self, module: nn.Module, _: Any) -> None:
        # The instance's own dict comes before the registered parameter when Python looks an attribute up.
        for attribute in self._casts:
            module.__dict__[attribute] = module.get_parameter(attribute).to(self._compute_dtype)
        for attribute, unit, index in self._weights:
            self._gather(unit)
            piece = unit.pieces[index]
            if piece.requires_grad:
                self._expect(unit, index)
            module.__dict__[attribute] = _WholeWeight.apply(piece, unit, index, self._collect)
        if self._weights:
            hooks = self._hooks()
            hooks.__enter__()
            self._entered.append(hooks)

    def _after(self, module: nn.Module, *_: Any) -> None:
        if self._entered:
            self._entered.pop().__exit__()
        for attribute in (*self._casts, *(attribute for attribute, _, _ in self._weights)):
            module.__dict__.pop(attribute, None)

    def _hooks(self) -> saved_tensors_hooks:
        """Return hooks that keep notes of weights, and give everything else to the hooks that were there before."""
        outside = versions.outer_saved_tensor_hooks()
        units = {unit for _, unit, _ in self._weights}

        def pack(tensor: Tensor) -> Any:
            for unit in units:
                if unit.holds(tensor):
                    return _Note(unit, tensor.shape, tensor.stride(), int(tensor.storage_offset()))
            return _Kept(tensor, tensor._version) if outside is None else _Outside(outside[1], outside[0](tensor))

        def unpack(kept: Any) -> Tensor:
            if isinstance(kept, _Note):
                return self._gather(kept.unit).as_strided(kept.shape, kept.stride, kept.offset)
            if isinstance(kept, _Outside):
                return kept.unpack(kept.packed)
            if kept.tensor._version != kept.version:
                raise RuntimeError("a tensor needed for the backward pass of a sharded module was modified in place")
            return kept.tensor

        return saved_tensors_hooks(pack, unpack)
