"""Pieces of parameters, each with one rank that keeps its optimizer state."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch.nn import Parameter

from stepbench.parallel.communicator import Pending

_STAGES = 8


@dataclass(frozen=True)
class Piece:
    """Elements `[start, stop)` of a parameter, in row-major order.

    Attributes:
        parameter: the whole.
        start: the first element.
        stop: the one after the last.
        owner: the rank that keeps its state and updates it.
        stage: which part of a step it is updated in; what was updated in one stage travels during the next.
        local: on the owner, what its optimizer updates: it shares the parameter's memory. None elsewhere.
    """

    parameter: Parameter
    start: int
    stop: int
    owner: int
    stage: int
    local: Parameter | None


class Partition(Protocol):
    """One way to divide parameters among the ranks."""

    def add(self, parameters: Sequence[Parameter]) -> list[Piece]:
        """Divide some more parameters; return the pieces of all ranks, the same list on each but for `local`."""
        ...

    def finish_gradients(self) -> None:
        """Give every local piece the mean of its gradient over the ranks, or None if no rank has one."""
        ...

    def take_back(self) -> None:
        """Move parameters back into the buffers that were given other memory (`p.data = …`), with their new values.

        Raises:
            RuntimeError: one has another dtype, shape or device now.
        """
        ...

    def publish(self, stage: int) -> list[Pending]:
        """Launch what brings the updates of a stage from their owners to all ranks."""
        ...


def stage_bytes(whole_bytes: int, message_bytes: float) -> float:
    """Return how much is updated before it travels: a message at least, and at most `_STAGES` of them.

    While one stage travels the next is updated, and the optimizer's temporary tensors are as small as a stage. But each
    stage costs the optimizer's own overhead once more, a tenth of a millisecond.
    """
    return max(message_bytes, whole_bytes / _STAGES)


def balance(sizes: Sequence[int], loads: list[int]) -> list[int]:
    """Assign each size to the rank with the least load so far, largest first; return the rank of each.

    No rank ends more than the largest size above another, if it did not start so.

    Args:
        sizes: bytes to assign.
        loads: bytes that each rank has already; updated.

    Source: Graham 1969, Bounds on multiprocessing timing anomalies (longest processing time first).
    """
    heap = [(load, rank) for rank, load in enumerate(loads)]
    heapq.heapify(heap)
    owners = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        load, rank = heapq.heappop(heap)
        owners[index] = rank
        loads[rank] = load + sizes[index]
        heapq.heappush(heap, (loads[rank], rank))
    return owners
