"""A unit: weights that are gathered, used and freed together. The mechanism of `fsdp.py`, which says when.

Their masters stand one after the other in one flat buffer, cut into one equal slice for each rank, so that the result
of an all-gather is the weights themselves, without a copy. A weight's part of this rank's slice, a piece, is the
parameter that the optimizer sees; it has one dim, and may be empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import Parameter

from stepbench.parallel.bucket import Layout
from stepbench.parallel.communicator import Communicator, Pending
from stepbench.parallel.gradient_norm import ShardGradient
from stepbench.parallel.owned_parameters import take_back


class Unit:
    """Some weights, of which this rank keeps one slice.

    Args:
        weights: of one dtype, equal on all ranks; copied.
        communicator: the ranks.
        compute_dtype: of the gathered weights and of their gradients on the way; None for that of the weights.

    Attributes:
        pieces: one parameter for each weight, `[n]` with n from 0; their `.grad` is set by `take_gradients`.
        sent: the gradients of this step have been sent.
    """

    def __init__(
        self, weights: Sequence[Tensor], communicator: Communicator, compute_dtype: torch.dtype | None
    ) -> None:
        self._communicator = communicator
        rows = [weight.detach().contiguous() for weight in weights]
        self._layout = Layout.of(rows, slices=communicator.size)
        self._compute_dtype = compute_dtype or rows[0].dtype
        length = self._layout.length // communicator.size
        self._slice = slice(communicator.rank * length, (communicator.rank + 1) * length)
        self._masters = torch.zeros(length, dtype=rows[0].dtype, device=rows[0].device)
        self._views = self._parts(self._masters)
        self.pieces = [
            Parameter(view, requires_grad=weight.requires_grad)
            for view, weight in zip(self._views, weights, strict=True)
        ]
        self.load(rows)
        self._full: Tensor | None = None
        self._gathering: Pending | None = None
        self._gradients: Tensor | None = None
        self._scattered: Tensor | None = None
        self._scattering: Pending | None = None
        self._expected = [0] * len(rows)
        self._arrived = [0] * len(rows)
        self._present = [False] * len(rows)
        self.sent = False

    # -- weights -------------------------------------------------------------------------------------------------------

    def __deepcopy__(self, _: Any) -> NoReturn:
        # Its copy would have pieces of its own and gather the original's weights.
        raise TypeError(
            "a sharded module cannot be copied: copy the module before it is sharded, and hand it whole parameters of "
            "gather_full_parameters(), or shard the copy as well and give them to its load_full_parameters()"
        )

    def take_back(self) -> None:
        """Move pieces back into the slice that were given other memory (`p.data = …`), with their new values.

        Raises:
            RuntimeError: one has another dtype, shape or device now.
        """
        take_back(self.pieces, self._views)

    @torch.no_grad()
    def load(self, weights: Sequence[Tensor]) -> None:
        """Take this rank's pieces out of whole weights."""
        for index, (piece, weight) in enumerate(zip(self.pieces, weights, strict=True)):
            start, stop = self._layout.cut(index, self._slice.start, self._slice.stop)
            piece.copy_(weight.reshape(-1)[start:stop])

    @torch.no_grad()
    def start_gather(self) -> Tensor:
        """Launch the all-gather, if the weights are not here or on their way; return the buffer for them `[length]`."""
        if self._full is None:
            self._full = self._new(self._compute_dtype)
            self._gathering = self._gather_into(self._full)
        return self._full

    def gathered(self) -> Tensor:
        """Return the buffer with the weights `[length]`, gathering it first if need be."""
        full = self.start_gather()
        if self._gathering is not None:
            self._gathering.wait()
            self._gathering = None
        return full

    def weight(self, index: int) -> Tensor:
        """Return one whole weight, in the compute dtype."""
        return self._layout.view(self.gathered(), index)

    def holds(self, tensor: Tensor) -> bool:
        """Return whether a tensor is a view of the gathered weights."""
        # Not by address: a fake tensor, on which memory is predicted, has none.
        return self._full is not None and tensor.untyped_storage()._cdata == self._full.untyped_storage()._cdata

    def free(self) -> None:
        """Let go of the gathered weights; who still computes with them keeps them until done."""
        if self._gathering is not None:
            self._gathering.wait()
        self._full = self._gathering = None

    def masters(self) -> list[Tensor]:
        """Return all whole weights in the dtype of the masters; a collective."""
        self.take_back()
        with torch.no_grad():
            full = self._new(self._masters.dtype)
            self._gather_into(full).wait()
        return [view.clone() for view in self._layout.views(full)]

    # -- gradients -----------------------------------------------------------------------------------------------------

    @property
    def awaits_gradients(self) -> bool:
        """Whether a gradient is still to come in this backward pass."""
        return any(arrived < expected for arrived, expected in zip(self._arrived, self._expected, strict=True))

    @property
    def has_gradients(self) -> bool:
        """Whether there are gradients that have not been sent."""
        return self._gradients is not None and not self.sent

    def expect(self, index: int, *, recomputing: bool) -> None:
        """Note that a weight is used where autograd looks.

        Checkpointing runs a forward pass again during the backward pass, where each use of the first one returns. The
        gradient comes from the first use, or from the second if the first was not recorded (reentrant checkpointing);
        so a use counts once, in the forward pass, whether recorded or not.
        """
        if not (recomputing and self._expected[index]):
            self._expected[index] += 1

    @torch.no_grad()
    def collect(self, index: int, gradient: Tensor, *, accumulating: bool) -> None:
        """Add a weight's gradient `[shape]`, divided by the number of ranks.

        Raises:
            RuntimeError: the gradients of this step have been sent already.
        """
        if self.sent:
            raise RuntimeError("finish_gradient_synchronization() must be called before the next backward pass")
        if self._gradients is None:
            # Sums over several backward passes are kept in the precision of the masters.
            self._gradients = self._new(self._masters.dtype if accumulating else self._compute_dtype)
        view = self._layout.view(self._gradients, index)
        if self._present[index]:
            view.add_(gradient, alpha=1 / self._communicator.size)
        else:
            torch.div(gradient, self._communicator.size, out=view)
        self._present[index] = True
        self._arrived[index] += 1

    def send_gradients(self) -> None:
        """Launch the reduce-scatter of what was collected; a weight without a gradient counts as zero."""
        if self._gradients is None:
            raise RuntimeError("gradients must be collected before they are sent")
        for view, present in zip(self._layout.views(self._gradients), self._present, strict=True):
            if not present:
                view.zero_()
        self._scattered = self._gradients.new_empty(len(self._masters))
        self._scattering = self._communicator.reduce_scatter(self._scattered, self._gradients)
        self.sent = True

    def take_gradients(self) -> None:
        """Wait for the reduce-scatter, if one is under way, and set or add to the gradients of the pieces."""
        if self._scattering is None or self._scattered is None:
            return
        self._scattering.wait()
        parts = self._parts(self._scattered.to(self._masters.dtype))
        for piece, part, present in zip(self.pieces, parts, self._present, strict=True):
            if present:
                if piece.grad is None:
                    piece.grad = ShardGradient.of(part, self._communicator)
                else:
                    piece.grad.add_(part)
        self._gradients = self._scattered = self._scattering = None
        self._present = [False] * len(self.pieces)

    def begin_step(self) -> None:
        """Forget what was expected, and the gathered weights, which the optimizer is about to change."""
        self.free()
        self._expected = [0] * len(self.pieces)
        self._arrived = [0] * len(self.pieces)
        self.sent = False

    # -- buffers -------------------------------------------------------------------------------------------------------

    def _new(self, dtype: torch.dtype) -> Tensor:
        return torch.empty(self._layout.length, dtype=dtype, device=self._masters.device)

    def _gather_into(self, full: Tensor) -> Pending:
        full[self._slice].copy_(self._masters)
        return self._communicator.all_gather(full)

    def _parts(self, shard: Tensor) -> list[Tensor]:
        """Return each weight's part of a slice-sized buffer."""
        parts = []
        for index, first in enumerate(self._layout.starts):
            start, stop = self._layout.cut(index, self._slice.start, self._slice.stop)
            low = max(first + start - self._slice.start, 0)
            parts.append(shard[low : low + stop - start])
        return parts
