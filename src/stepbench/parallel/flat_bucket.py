"""A bucket in slices: gradients are reduce-scattered, parameters all-gathered. The mechanism of `flat_shards.py`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from stepbench.parallel.bucket import Layout, dense_gradient
from stepbench.parallel.communicator import Communicator, Pending
from stepbench.parallel.owned_parameters import move, take_back


class FlatBucket:
    """Some parameters in one buffer of equal slices, one for each rank.

    Args:
        parameters: of one dtype and device, contiguous; moved into the buffer.
        communicator: the ranks.

    Attributes:
        ranges: for each parameter and each rank whose slice it reaches into: slot, rank, and which of its elements.
        local: this rank's part of each parameter in its slice, by slot; shares the buffer's memory.
    """

    def __init__(self, parameters: Sequence[Parameter], communicator: Communicator) -> None:
        self.parameters = tuple(parameters)
        self._communicator = communicator
        self._layout = Layout.of(parameters, slices=communicator.size)
        self._buffer = move(parameters, self._layout)
        communicator.broadcast(self._buffer, root=0).wait()
        length = self._layout.length // communicator.size
        cuts = [
            (slot, rank, *self._layout.cut(slot, rank * length, (rank + 1) * length))
            for slot in range(len(parameters))
            for rank in range(communicator.size)
        ]
        # A parameter without elements has a state too (a count of steps), which the rank keeps where it would stand.
        homes = [min(start // length, communicator.size - 1) for start in self._layout.starts]
        self.ranges = [
            (slot, rank, start, stop)
            for slot, rank, start, stop in cuts
            if start < stop or (not parameters[slot].numel() and rank == homes[slot])
        ]
        self._places = {
            slot: (self._layout.starts[slot] + start - rank * length, stop - start)
            for slot, rank, start, stop in self.ranges
            if rank == communicator.rank
        }
        mine = self._buffer[communicator.rank * length : (communicator.rank + 1) * length]
        self.local = {slot: Parameter(mine[first : first + count]) for slot, (first, count) in self._places.items()}
        self._gradients: Tensor | None = None
        self._shard: Tensor | None = None
        self._pending: Pending | None = None
        self.filled = [False] * len(parameters)

    def take_back(self) -> None:
        """Move parameters back into the buffer that were given other memory."""
        take_back(self.parameters, self._layout.views(self._buffer))

    @torch.no_grad()
    def fill(self, slot: int) -> None:
        """Move a parameter's gradient into the buffer of gradients, divided by the number of ranks.

        Its `.grad` is None afterwards: to keep all gradients until the step is what this bucket is there to avoid.
        """
        parameter = self.parameters[slot]
        gradient = dense_gradient(parameter)
        if gradient is None:
            return
        torch.div(gradient, self._communicator.size, out=self._layout.view(self._gradient_buffer(), slot))
        parameter.grad = None
        self.filled[slot] = True

    @torch.no_grad()
    def launch(self) -> None:
        """Reduce-scatter the gradients; what has none counts as zero."""
        full = self._gradient_buffer()
        for slot, filled in enumerate(self.filled):
            if not filled:
                self.fill(slot)
            if not self.filled[slot]:
                self._layout.view(full, slot).zero_()
        self._shard = full.new_empty(full.numel() // self._communicator.size)
        self._pending = self._communicator.reduce_scatter(self._shard, full)

    def take(self) -> None:
        """Wait for this rank's slice of the mean, and let go of the whole."""
        if self._pending is not None:
            self._pending.wait()
        self._pending = self._gradients = None

    def hand_out(self, present: Sequence[bool]) -> None:
        """Give each local part its gradient, or None where no rank has one; then begin the next step."""
        for slot, part in self.local.items():
            first, count = self._places[slot]
            part.grad = self._shard[first : first + count] if present[slot] and self._shard is not None else None
        self._shard = None
        self.filled = [False] * len(self.parameters)

    def publish(self) -> Pending:
        """All-gather the parameters out of their updated slices, and drop the gradients."""
        for part in self.local.values():
            part.grad = None
        return self._communicator.all_gather(self._buffer)

    def _gradient_buffer(self) -> Tensor:
        if self._gradients is None:
            self._gradients = torch.empty_like(self._buffer)
        return self._gradients
