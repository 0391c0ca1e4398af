"""Equal slices of flat buckets: gradients are reduce-scattered into them, and parameters all-gathered out of them.

Moves as many bytes as one all-reduce, where a full synchronisation and then a broadcast moves half as many again, and
divides state and gradients evenly whatever the parameters' sizes. The optimizer sees slices without their shape, so it
must be one that works on each element by itself.

Source: Rajbhandari et al. 2019, ZeRO (arXiv:1910.02054), section 5.2 (gradient partitioning).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from torch.nn import Parameter

from stepbench.parallel.bucket import assign
from stepbench.parallel.communicator import Communicator, Pending
from stepbench.parallel.data_parallel import LaunchOrder, present_anywhere, when_accumulated
from stepbench.parallel.flat_bucket import FlatBucket
from stepbench.parallel.pieces import Piece, stage_bytes

_IN_FLIGHT = 2  # reduce-scatters; each holds a whole bucket of gradients


class FlatShards:
    """Parameters in flat buckets, of which each rank owns one slice; gradients leave during the backward pass.

    Args:
        communicator: the ranks.
        bucket_bytes: a bucket is closed as soon as it holds this much.
        synchronizes: whether gradients that appear now are to be communicated.
    """

    def __init__(self, communicator: Communicator, bucket_bytes: float, synchronizes: Callable[[], bool]) -> None:
        self._communicator = communicator
        self._bucket_bytes = bucket_bytes
        self._synchronizes = synchronizes
        self._buckets: list[FlatBucket] = []
        self._stages: list[int] = []
        self._order = LaunchOrder(0)
        self._in_flight: deque[FlatBucket] = deque()
        self._finished = False

    def add(self, parameters: Sequence[Parameter]) -> list[Piece]:
        """Cut some more parameters; one piece for each slice that a parameter reaches into.

        Raises:
            ValueError: a parameter is not contiguous.
            RuntimeError: gradients are under way.
        """
        if self._in_flight or any(any(bucket.filled) for bucket in self._buckets):
            raise RuntimeError("a group must be added before the backward pass or after step(), got one in between")
        for parameter in parameters:
            if not parameter.is_contiguous():
                raise ValueError(f"`params` must be contiguous to be cut, got strides {parameter.stride()}")
        whole_bytes = sum(parameter.nbytes for parameter in parameters)
        pieces, passed_bytes = [], 0
        for members in assign(reversed(parameters), bucket_bytes=self._bucket_bytes):
            index, bucket = len(self._buckets), FlatBucket(members, self._communicator)
            stage = int(passed_bytes // stage_bytes(whole_bytes, self._bucket_bytes))
            passed_bytes += sum(member.nbytes for member in members)
            self._buckets.append(bucket)
            self._stages.append(stage)
            for slot, member in enumerate(members):
                when_accumulated(member, self._on_gradient, index, slot)
            for slot, rank, start, stop in bucket.ranges:
                local = bucket.local[slot] if rank == self._communicator.rank else None
                pieces.append(Piece(members[slot], start, stop, rank, stage, local))
        self._order = LaunchOrder(len(self._buckets))
        return pieces

    def _on_gradient(self, index: int, slot: int) -> None:
        if not self._synchronizes():
            return
        bucket = self._buckets[index]
        if self._finished or bucket.filled[slot]:
            raise RuntimeError("step() must be called before the next backward pass, or that be inside no_sync()")
        bucket.fill(slot)
        if all(bucket.filled):
            for ready in self._order.mark(index):
                self._launch(self._buckets[ready])

    def _launch(self, bucket: FlatBucket) -> None:
        if len(self._in_flight) == _IN_FLIGHT:
            self._in_flight.popleft().take()
        bucket.launch()
        self._in_flight.append(bucket)

    def finish_gradients(self) -> None:
        """Send what has not been sent, wait for all slices, and give them to the local pieces; once for each step."""
        if self._finished:
            return
        for index in self._order.rest():
            self._launch(self._buckets[index])
        present = [filled for bucket in self._buckets for filled in bucket.filled]
        anywhere = iter(present_anywhere(present, self._communicator))
        while self._in_flight:
            self._in_flight.popleft().take()
        for bucket in self._buckets:
            bucket.hand_out([next(anywhere) for _ in bucket.parameters])
        self._finished = True

    def take_back(self) -> None:
        """Move parameters back into their buckets that were given other memory."""
        for bucket in self._buckets:
            bucket.take_back()

    def publish(self, stage: int) -> list[Pending]:
        """Launch the all-gathers of a stage."""
        self._finished = False
        return [bucket.publish() for bucket, each in zip(self._buckets, self._stages, strict=True) if each == stage]
