"""The search for the last batch that runs: from where it is expected, outwards, then by bisection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Edge:
    """What was found.

    Attributes:
        last: the largest batch that ran; 0 where a batch of 1 did not. The next larger one was tried and did not run.
        tried: each batch that was tried, in order, and whether it ran.
    """

    last: int
    tried: tuple[tuple[int, bool], ...]


def find(runs: Callable[[int], bool], expected: int) -> Edge:
    """Return the edge; two tries suffice where it is as expected.

    Args:
        runs: whether a step of a batch runs; true for all batches below one for which it is.
        expected: the batch that is expected to be the last, from 0.
    """
    tried: dict[int, bool] = {}

    def ran(batch: int) -> bool:
        if batch not in tried:
            tried[batch] = runs(batch)
        return tried[batch]

    low, high, step = expected, expected + 1, 1
    while low and not ran(low):
        low, high, step = max(0, low - step), low, 2 * step
    step = 1
    while ran(high):
        low, high, step = high, high + step, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if ran(middle) else (low, middle)
    return Edge(low, tuple(tried.items()))
