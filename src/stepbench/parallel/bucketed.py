"""Gradients travel in buckets of a chosen size while the backward pass goes on.

Between the two extremes: small buckets leave early and hide well but each pays its latency, one large bucket pays it
once and has nothing left to hide behind. The best size lies where a bucket's transfer takes about as long as the
computation of the next one.

Source: Li et al. 2020, PyTorch Distributed (arXiv:2006.15704), section 3.2.3.
"""

from __future__ import annotations

from torch import distributed as dist
from torch import nn

from stepbench.parallel.bucket import MIB, Bucket, assign
from stepbench.parallel.data_parallel import DataParallel, LaunchOrder, when_accumulated
from stepbench.parallel.replica import BUCKET_MIB, Group, Recipe, Replica, Strategy, with_plain_optimizer

FIRST_BUCKET_MIB = 1.0  # so that the wire has something to do early


class BucketedDDP(DataParallel):
    """Data parallelism with one all-reduce for each bucket, started when the bucket is complete.

    After the first step every `.grad` is a view into its bucket, so that no gradient is copied back.

    Args:
        module: as in `DataParallel`.
        bucket_mib: a bucket is closed as soon as it holds this much, the first one as soon as it holds
            `FIRST_BUCKET_MIB`; torch's DDP has the same rule, so that the two are compared with the same buckets.
            Positive.
        group: as in `DataParallel`.

    Attributes:
        buckets: in the order in which they leave.

    Raises:
        ValueError: `bucket_mib` is not positive; and as in `DataParallel`.
    """

    def __init__(self, module: nn.Module, *, bucket_mib: float, group: dist.ProcessGroup | None = None) -> None:
        if not bucket_mib > 0:
            raise ValueError(f"`bucket_mib` must be positive, got {bucket_mib}")
        super().__init__(module, group=group)
        assigned = assign(reversed(self._trainable), bucket_bytes=bucket_mib * MIB, first_bytes=FIRST_BUCKET_MIB * MIB)
        self.buckets = [Bucket(parameters, self.communicator) for parameters in assigned]
        self._order = LaunchOrder(len(self.buckets))
        for index, bucket in enumerate(self.buckets):
            for slot, parameter in enumerate(bucket.parameters):
                when_accumulated(parameter, self._on_gradient, index, slot)

    def _on_gradient(self, index: int, slot: int) -> None:
        if not self._synchronizes:
            return
        if self.buckets[index].is_filled(slot):
            raise RuntimeError("finish_gradient_synchronization() must be called before the next backward pass")
        self.buckets[index].fill(slot)
        if self.buckets[index].is_complete:
            for ready in self._order.mark(index):
                self.buckets[ready].launch()

    def _finish(self) -> None:
        for index in self._order.rest():
            self.buckets[index].launch()
        for bucket in self.buckets:
            bucket.wait()


def _build(module: nn.Module, recipe: Recipe, group: Group, *, bucket_mib: float = BUCKET_MIB) -> Replica:
    return with_plain_optimizer(BucketedDDP(module, bucket_mib=bucket_mib, group=group), recipe)


STRATEGY = Strategy(_build)
