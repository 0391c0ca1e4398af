"""What every strategy that sends gradients has: backward passes that send none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Synchronizes:
    """Gradients of a backward pass travel, except inside `no_sync()`."""

    _synchronizes = True

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Accumulate gradients on this rank alone; the next backward pass outside communicates their sum."""
        before, self._synchronizes = self._synchronizes, False
        try:
            yield
        finally:
            self._synchronizes = before

    def finish_gradient_synchronization(self) -> None:
        """Return when the gradients are ready for the optimizer; a collective."""
        raise NotImplementedError

    def _refuse_inside_no_sync(self) -> None:
        if not self._synchronizes:
            raise RuntimeError("finish_gradient_synchronization() must be called outside no_sync()")
