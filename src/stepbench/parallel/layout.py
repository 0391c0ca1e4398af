"""Where several tensors stand in one flat buffer."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

_ALIGNMENT_BYTES = 64  # a cache line; CUDA's vectorised kernels want 16


@dataclass(frozen=True)
class Layout:
    """Consecutive places in a one-dimensional buffer, each aligned, the whole padded.

    Attributes:
        starts: the first element of each tensor.
        shapes: their shapes.
        strides: their strides, those of the original where it is dense.
        length: elements of the buffer.
    """

    starts: tuple[int, ...]
    shapes: tuple[torch.Size, ...]
    strides: tuple[tuple[int, ...], ...]
    length: int

    @classmethod
    def of(cls, tensors: Sequence[Tensor], *, extra: int = 0, slices: int = 1) -> Layout:
        """Place tensors of one dtype one after the other.

        Args:
            tensors: what to place; only their shapes, strides and element size are looked at.
            extra: elements to leave free at the end, before the padding.
            slices: into how many equal, aligned parts the buffer must be divisible.
        """
        aligned = max(1, _ALIGNMENT_BYTES // tensors[0].element_size())
        sizes = [_up(tensor.numel(), aligned) for tensor in tensors]
        *starts, used = itertools.accumulate(sizes, initial=0)
        strides = tuple(torch.empty_like(tensor, device="meta").stride() for tensor in tensors)
        shapes = tuple(tensor.shape for tensor in tensors)
        # Never empty, so that no backend is asked to send nothing.
        return cls(tuple(starts), shapes, strides, _up(max(1, used + extra), aligned * slices))

    @property
    def used(self) -> int:
        """Elements before the first free one, alignment aside."""
        return self.starts[-1] + self.shapes[-1].numel()

    def view(self, buffer: Tensor, index: int) -> Tensor:
        """Return the view of the buffer `[length]` that is one of the tensors, in its shape and strides."""
        start, shape = self.starts[index], self.shapes[index]
        return buffer[start : start + shape.numel()].as_strided(shape, self.strides[index])

    def views(self, buffer: Tensor) -> list[Tensor]:
        """Return the views of all tensors."""
        return [self.view(buffer, index) for index in range(len(self.starts))]

    def cut(self, index: int, start: int, stop: int) -> tuple[int, int]:
        """Return which elements of a tensor, in its own numbering, stand in `[start, stop)` of the buffer."""
        first, count = self.starts[index], self.shapes[index].numel()
        low = min(max(start - first, 0), count)
        return low, max(low, min(stop - first, count))


def by_kind(parameters: Iterable[Parameter]) -> list[list[Parameter]]:
    """Return the parameters in groups of one dtype and device, which alone can share a buffer, keeping their order."""
    groups: dict[Hashable, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    return list(groups.values())


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
