"""In which order messages leave.

Collectives have no address: the first one that rank 0 starts meets the first one that rank 1 starts. So the ranks must
start theirs in the same order, although their gradients may become ready in different ones, a rank may use another
branch of the module, or a parameter may get no gradient at all.
"""

from __future__ import annotations

from collections.abc import Iterator


class LaunchOrder:
    """Lets numbered messages leave as 0, 1, 2, …, each as soon as it and all before it are ready.

    Args:
        count: how many messages there are in a step.
    """

    def __init__(self, count: int) -> None:
        self._ready = [False] * count
        self._next = 0

    def is_ready(self, index: int) -> bool:
        """Return whether a message has been marked in this step."""
        return self._ready[index]

    def mark(self, index: int) -> Iterator[int]:
        """Note that a message is ready, and yield those that leave now, in order."""
        self._ready[index] = True
        while self._next < len(self._ready) and self._ready[self._next]:
            self._next += 1
            yield self._next - 1

    def rest(self) -> Iterator[int]:
        """Yield those that have not left, in order, ready or not, and begin the next step."""
        first, self._next = self._next, 0
        self._ready = [False] * len(self._ready)
        yield from range(first, len(self._ready))
