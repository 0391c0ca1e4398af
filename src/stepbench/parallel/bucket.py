"""Buckets: which gradients share one, where each stands in it, and how it travels as one message.

This is the mechanism: `assign` divides parameters among buckets, a `Layout` places tensors in one flat buffer, and a
`Bucket` holds gradients in such a buffer. When a bucket leaves is the policy of whoever has it (`bucketed.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from stepbench.parallel.communicator import Communicator, Pending
from stepbench.versions import FakeTensor

MIB = 2**20
_ALIGNMENT_BYTES = 64  # a cache line; CUDA's vectorised kernels want 16


def assign(
    parameters: Iterable[Parameter], *, bucket_bytes: float, first_bytes: float | None = None
) -> list[list[Parameter]]:
    """Return buckets of parameters, filled in the given order, each dtype and device for itself.

    A bucket is closed as soon as it holds `bucket_bytes`, so all but the last of each kind hold that much, and none
    holds more than that and one parameter. Buckets come in the order of their last parameters: if gradients appear in
    the given order, that is the order in which buckets become complete.

    Args:
        parameters: in the order in which their gradients are expected.
        bucket_bytes: what closes a bucket.
        first_bytes: what closes the first one of each kind, if that is less.
    """
    place = {parameter: number for number, parameter in enumerate(parameters)}
    buckets: list[list[Parameter]] = []
    filling: dict[Hashable, list[Parameter]] = {}
    filled_bytes: dict[Hashable, int] = {}
    limits: dict[Hashable, float] = {}
    first = bucket_bytes if first_bytes is None else min(first_bytes, bucket_bytes)
    for parameter in place:
        kind = (parameter.dtype, parameter.device)
        filling.setdefault(kind, []).append(parameter)
        filled_bytes[kind] = filled_bytes.get(kind, 0) + parameter.nbytes
        if filled_bytes[kind] >= limits.get(kind, first):
            limits[kind] = bucket_bytes
            buckets.append(filling.pop(kind))
            filled_bytes[kind] = 0
    return sorted([*buckets, *filling.values()], key=lambda bucket: place[bucket[-1]])


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


def dense_gradient(parameter: Parameter) -> Tensor | None:
    """Return a parameter's gradient, if it has one.

    Raises:
        ValueError: it is sparse, and the means over the ranks are taken of dense ones.
    """
    gradient = parameter.grad
    if gradient is not None and gradient.layout is not torch.strided:
        raise ValueError(
            f"a gradient must be dense to be averaged over the ranks, got {gradient.layout}; "
            "an Embedding makes such gradients with sparse=True"
        )
    return gradient


def set_anywhere(summed: Tensor, own: Sequence[bool]) -> list[bool]:
    """Return which flags are set on any rank.

    Reading them makes a CUDA device wait, so it is done only where one is missing here. A fake tensor, on which memory
    is predicted without other ranks, has no values: there the others are taken to be as this one.

    Args:
        summed: one number for each flag, 0 where no rank has set it; it may be complex.
        own: which this rank has set.
    """
    if all(own) or isinstance(summed, FakeTensor):
        return list(own)
    return [count != 0 for count in summed.tolist()]


class Bucket:
    """The gradients of some parameters, as views into one buffer.

    Behind the gradients the buffer holds one flag for each parameter. The flags are summed in the same message, and say
    afterwards which parameters have a gradient on any rank, at no message of their own.

    Args:
        parameters: of one dtype and device.
        communicator: the ranks over which to take the mean.
    """

    def __init__(self, parameters: Sequence[Parameter], communicator: Communicator) -> None:
        self.parameters = tuple(parameters)
        self._communicator = communicator
        first, layout = self.parameters[0], Layout.of(self.parameters, extra=len(self.parameters))
        # Zeros, because the padding is summed as well, and must not hold a signalling NaN.
        self._buffer = torch.zeros(layout.length, dtype=first.dtype, device=first.device)
        self._views = layout.views(self._buffer)
        self._flags = self._buffer[layout.used : layout.used + len(self.parameters)]
        self._filled = [False] * len(self.parameters)
        self._pending: Pending | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every gradient is in."""
        return all(self._filled)

    def is_filled(self, slot: int) -> bool:
        """Whether one gradient is in."""
        return self._filled[slot]

    @torch.no_grad()
    def fill(self, slot: int) -> None:
        """Move a parameter's gradient into the buffer, divided by the number of ranks; its `.grad` is then a view."""
        view, gradient = self._views[slot], dense_gradient(self.parameters[slot])
        if gradient is None:
            raise ValueError("a gradient must be there to be put into a bucket, got none")
        if gradient.dtype != view.dtype:
            raise ValueError(f"a module must be converted before it is wrapped, got {gradient.dtype} for {view.dtype}")
        # The optimizer's zero_grad() dropped the last view, so autograd made a tensor of its own. Where it did not
        # (gradients set to zero, or accumulated), the gradient is in its place already.
        if gradient.is_set_to(view):
            view.div_(self._communicator.size)
        else:
            torch.div(gradient, self._communicator.size, out=view)
        self.parameters[slot].grad = view
        self._filled[slot] = True

    @torch.no_grad()
    def launch(self) -> None:
        """Send the bucket. What has not been filled counts as zero, unless it has a gradient from before."""
        for slot, parameter in enumerate(self.parameters):
            if self._filled[slot]:
                continue
            if parameter.grad is not None:
                self.fill(slot)
            else:
                self._views[slot].zero_()
        if self.is_complete:
            self._flags.fill_(1 / self._communicator.size)
        else:
            present = torch.tensor(self._filled, dtype=self._flags.dtype, device=self._flags.device)
            torch.div(present, self._communicator.size, out=self._flags)
        self._pending = self._communicator.all_reduce(self._buffer)

    def wait(self) -> None:
        """Wait for the mean, and let every parameter that has a gradient anywhere see it; then begin the next step."""
        if self._pending is None:
            raise RuntimeError("a bucket must be launched before it is waited for")
        self._pending.wait()
        self._pending = None
        if not self.is_complete:
            for slot, is_set in enumerate(set_anywhere(self._flags, self._filled)):
                if not self._filled[slot]:
                    self.parameters[slot].grad = self._views[slot] if is_set else None
        self._filled = [False] * len(self.parameters)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
