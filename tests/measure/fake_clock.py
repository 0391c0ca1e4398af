"""A clock for tests of the timing protocol."""

from collections.abc import Iterable


class FakeClock:
    """A clock of scripted ticks, for tests of the protocol; it records the order of its calls.

    Args:
        ticks: the successive return values of `now`, in seconds.
    """

    name = "fake"
    is_asynchronous = False

    def __init__(self, ticks: Iterable[float]) -> None:
        self._ticks = iter(ticks)
        self.calls: list[str] = []

    def now(self) -> float:
        """Return the next tick."""
        self.calls.append("now")
        return next(self._ticks)

    def synchronize(self) -> None:
        """Record the call."""
        self.calls.append("synchronize")
