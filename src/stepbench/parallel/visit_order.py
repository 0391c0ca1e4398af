"""What comes next, as long as it comes in the order of last time."""

from __future__ import annotations

from typing import Generic, TypeVar

Item = TypeVar("Item")


class VisitOrder(Generic[Item]):
    """Remembers the order of one pass and foretells the next.

    Args:
        ahead: how many items to foretell.
    """

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._last_time: list[Item] = []
        self._seen: list[Item] = []
        self._same = True

    @property
    def current(self) -> Item | None:
        """The item visited last in this pass."""
        return self._seen[-1] if self._seen else None

    def visit(self, item: Item) -> list[Item]:
        """Note a visit and return what is expected next; nothing if the item stays the same, or is a surprise."""
        if self._seen and self._seen[-1] == item:
            return []
        self._seen.append(item)
        place = len(self._seen)
        self._same = self._same and self._last_time[place - 1 : place] == [item]
        return self._last_time[place : place + self._ahead] if self._same else []

    def is_last(self, item: Item) -> bool:
        """Return whether the last pass ended with this item, and this pass has come to its end as well."""
        return self._same and len(self._seen) == len(self._last_time) and self._seen[-1:] == [item]

    def restart(self) -> None:
        """Begin a pass."""
        if self._seen:
            self._last_time, self._seen = self._seen, []
        self._same = True
