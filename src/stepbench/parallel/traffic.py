"""What a strategy communicated, how long it waited for it, and how much of it ran hidden behind computation."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch

_KEPT = 100_000  # transfers; a harness that resets once a step never comes near

Stamp = float | torch.cuda.Event


@dataclass(frozen=True)
class Transfer:
    """One collective, in seconds since the last `Traffic.reset()`.

    Attributes:
        operation: `all_reduce`, `broadcast`, `all_gather` or `reduce_scatter`.
        payload_bytes: of the whole message: what is reduced, or what every rank has in the end.
        start_s: when it was handed to the backend.
        end_s: when it was complete on this rank; None if that has not been seen.
    """

    operation: str
    payload_bytes: int
    start_s: float
    end_s: float | None


class Traffic:
    """A strategy's counter.

    On a CPU, times are the host's. On a CUDA device they are the device's, taken with events: there `wait()` returns at
    once, and what waits is the stream of the computation. Reading a time then synchronises with the device.

    Attributes:
        calls: collectives since the last reset.
        payload_bytes: their messages' bytes, summed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.reset()

    def reset(self) -> None:
        """Forget everything; call it between steps, when no collective is under way."""
        self.calls = 0
        self.payload_bytes = 0
        self._waits: list[tuple[str, Stamp, Stamp]] = []
        self._waited_s: dict[str, float] = {}
        self._open: deque[OpenTransfer] = deque(maxlen=_KEPT)
        self._origin = self._now()

    def wait_s(self, operation: str | None = None) -> float:
        """Return the seconds waited for one operation, or for all."""
        for each, start, end in self._waits:
            self._waited_s[each] = self._waited_s.get(each, 0.0) + self._since(end, start)
        self._waits.clear()
        return sum(self._waited_s.values()) if operation is None else self._waited_s.get(operation, 0.0)

    @property
    def transfers(self) -> list[Transfer]:
        """The collectives in the order of their launch, for a picture over time."""
        return [
            Transfer(
                each.operation,
                each.payload_bytes,
                self._since(each.start, self._origin),
                None if each.end is None else self._since(each.end, self._origin),
            )
            for each in self._open
        ]

    def busy_s(self, operation: str | None = None) -> float:
        """Return the seconds in which one operation, or any, was under way; two at a time count once."""
        busy_s, reached_s = 0.0, float("-inf")
        for transfer in sorted(self.transfers, key=lambda each: each.start_s):
            if operation not in (None, transfer.operation) or transfer.end_s is None or transfer.end_s <= reached_s:
                continue
            busy_s += transfer.end_s - max(transfer.start_s, reached_s)
            reached_s = transfer.end_s
        return busy_s

    def start(self, operation: str, payload_bytes: int) -> OpenTransfer:
        """Count a collective that is being launched."""
        self.calls += 1
        self.payload_bytes += payload_bytes
        transfer = OpenTransfer(operation, payload_bytes, self._now())
        self._open.append(transfer)
        return transfer

    @contextlib.contextmanager
    def waiting(self, operation: str) -> Iterator[None]:
        """Count the time inside as waited for an operation."""
        start = self._now()
        try:
            yield
        finally:
            self._waits.append((operation, start, self._now()))
            if len(self._waits) > _KEPT:
                self.wait_s()

    def watch(self, transfer: OpenTransfer, works: list[torch.distributed.Work]) -> None:
        """Note when the last of a collective's works is complete, without waiting for it."""
        if self._side is not None:
            with torch.cuda.stream(self._side):
                for work in works:
                    work.wait()
                transfer.end = self._now()
            return
        left = [len(works)]

        def done(_: object) -> None:
            left[0] -= 1
            if left[0] == 0 and transfer.end is None:
                transfer.end = time.perf_counter()

        for work in works:
            work.get_future().add_done_callback(done)

    def finish(self, transfer: OpenTransfer) -> None:
        """Note that a collective is complete; its own time of completion, if it is known already, stands."""
        if transfer.end is None:
            transfer.end = self._now()

    def _now(self) -> Stamp:
        if self._side is None:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    @staticmethod
    def _since(later: Stamp, earlier: Stamp) -> float:
        if isinstance(later, torch.cuda.Event) and isinstance(earlier, torch.cuda.Event):
            later.synchronize()
            return earlier.elapsed_time(later) / 1e3
        return cast("float", later) - cast("float", earlier)


@dataclass
class OpenTransfer:
    """A collective whose end may not have come."""

    operation: str
    payload_bytes: int
    start: Stamp
    end: Stamp | None = None
