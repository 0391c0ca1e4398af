"""A bucket: one flat buffer that holds several gradients, and travels as one message.

This is the mechanism. Which gradients share a bucket, and when it leaves, is the policy of `bucketed.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import Parameter

from stepbench.parallel.communicator import Communicator, Pending
from stepbench.parallel.layout import Layout


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
    def buffer_bytes(self) -> int:
        """What the bucket holds in memory, and sends."""
        return self._buffer.nbytes

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
        view, gradient = self._views[slot], self.parameters[slot].grad
        if gradient is None or gradient.layout is not torch.strided:
            found = "none" if gradient is None else str(gradient.layout)
            raise ValueError(f"a gradient must be dense to be put into a bucket, got {found}")
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
            # Reading the flags makes a CUDA device wait, so it is done only where it is needed.
            for slot, flag in enumerate(self._flags.tolist()):
                if not self._filled[slot]:
                    self.parameters[slot].grad = self._views[slot] if flag > 0 else None
        self._filled = [False] * len(self.parameters)
