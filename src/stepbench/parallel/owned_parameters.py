"""Whole parameters, each with one owner that updates it and broadcasts the result.

Source: Rajbhandari et al. 2019, ZeRO (arXiv:1910.02054), section 5.1 (optimizer state partitioning).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from stepbench.parallel.bucket import Layout, assign
from stepbench.parallel.communicator import Communicator, Pending
from stepbench.parallel.pieces import Piece, balance, stage_bytes


class OwnedParameters:
    """Parameters divided among the ranks by bytes; their gradients must be the mean over the ranks already.

    What an owner updates in one stage is moved into one buffer (the parameters' `.data` become views of it), so that it
    is broadcast in one message, and nothing is copied.

    Args:
        communicator: the ranks.
        message_bytes: broadcasts are at least this large, if there is as much.
    """

    def __init__(self, communicator: Communicator, message_bytes: float) -> None:
        self._communicator = communicator
        self._message_bytes = message_bytes
        self._loads = [0] * communicator.size
        self._buffers: list[tuple[int, int, Tensor]] = []
        self._views: dict[Parameter, Tensor] = {}

    def add(self, parameters: Sequence[Parameter]) -> list[Piece]:
        """Divide some more parameters, so that all ranks' loads even out; one piece for each, whole."""
        rank, before = self._communicator.rank, list(self._loads)
        owners = balance([parameter.nbytes for parameter in parameters], self._loads)
        largest = max(load - old for load, old in zip(self._loads, before, strict=True))
        stages: dict[Parameter, int] = {}
        for owner in range(self._communicator.size):
            owned = [parameter for parameter, each in zip(parameters, owners, strict=True) if each == owner]
            for stage, members in enumerate(assign(owned, bucket_bytes=stage_bytes(largest, self._message_bytes))):
                layout = Layout.of(members)
                buffer = move(members, layout)
                self._communicator.broadcast(buffer, root=0).wait()
                self._buffers.append((stage, owner, buffer))
                self._views.update(zip(members, layout.views(buffer), strict=True))
                stages.update(dict.fromkeys(members, stage))
        return [
            Piece(each, 0, each.numel(), owner, stages[each], each if owner == rank else None)
            for each, owner in zip(parameters, owners, strict=True)
        ]

    def finish_gradients(self) -> None:
        """Do nothing: the gradients have been synchronised by whoever wraps the module."""

    def take_back(self) -> None:
        """Move parameters back into their buffers that were given other memory."""
        take_back([*self._views], [*self._views.values()])

    def publish(self, stage: int) -> list[Pending]:
        """Launch the broadcasts of a stage, one from each owner."""
        return [
            self._communicator.broadcast(buffer, root=owner) for each, owner, buffer in self._buffers if each == stage
        ]


@torch.no_grad()
def move(parameters: Sequence[Tensor], layout: Layout) -> Tensor:
    """Move parameters into one new buffer `[layout.length]`; their memory is views of it from then on."""
    buffer = torch.zeros(layout.length, dtype=parameters[0].dtype, device=parameters[0].device)
    for parameter, view in zip(parameters, layout.views(buffer), strict=True):
        view.copy_(parameter)
        parameter.data = view
    return buffer


@torch.no_grad()
def take_back(parameters: Sequence[Tensor], views: Sequence[Tensor]) -> None:
    """Have parameters use their views of a buffer again, with the values of the memory that they were given since.

    `p.data = …` gives a parameter other memory: to swap averaged weights in, or `vector_to_parameters`. What is updated
    and sent is the buffer, which such a parameter would not see any more.

    Args:
        parameters: what `move` has moved, or a piece of it.
        views: the part of the buffer that belongs to each.

    Raises:
        RuntimeError: a parameter has another dtype, shape or device now.
    """
    for parameter, view in zip(parameters, views, strict=True):
        if parameter.is_set_to(view):
            continue
        found, right = ((each.dtype, tuple(each.shape), each.device) for each in (parameter, view))
        if found != right:
            told = [f"{dtype} {list(shape)} on {device}" for dtype, shape, device in (found, right)]
            raise RuntimeError(
                f"a module must be converted before it is sharded, got a parameter {told[0]} for {told[1]}"
            )
        view.copy_(parameter)
        parameter.data = view
