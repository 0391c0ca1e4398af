"""The collectives that the strategies use, each of them counted.

Four operations on flat tensors, always asynchronous, with one handle for all. On a CUDA device they are the backend's
own. On a CPU two of Gloo's are replaced, because they were measured to be slow (torch 2.13, 2 ranks of one machine,
64 MiB, medians): its reduce-scatter took 174 ms, exchanging the slices and adding them up here 58 ms; its all-gather
took 133 ms, one broadcast per rank 40 ms. Adding up here also fixes the order of the sum: rank 0, 1, 2, …
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from stepbench import versions
from stepbench.parallel.traffic import OpenTransfer, Traffic


class Pending:
    """A collective under way; its tensors belong to it until `wait()` has returned.

    Args:
        traffic: where the wait is counted.
        transfer: the collective there.
        works: the backend's handles.
        finish: what is left to do on this rank when they are complete.
    """

    def __init__(
        self,
        traffic: Traffic,
        transfer: OpenTransfer,
        works: Sequence[dist.Work],
        finish: Callable[[], None] | None = None,
    ) -> None:
        self._traffic = traffic
        self._transfer = transfer
        self._works = list(works)
        self._finish = finish
        traffic.watch(transfer, self._works)

    def wait(self) -> None:
        """Return when the result may be used (on a CUDA device: by what is launched from now on)."""
        with self._traffic.waiting(self._transfer.operation):
            for work in self._works:
                work.wait()
            self._traffic.finish(self._transfer)
            if self._finish is not None:
                self._finish()
        self._works, self._finish = [], None


class Communicator:
    """The ranks of a process group, as one strategy sees them.

    Args:
        device: where the tensors are.
        group: the process group, or None for all ranks.

    Attributes:
        rank: this one's number in the group.
        size: how many ranks there are.
        traffic: what was communicated through this object.

    Raises:
        RuntimeError: torch.distributed is not initialised.
    """

    def __init__(self, device: torch.device, group: dist.ProcessGroup | None = None) -> None:
        if not dist.is_initialized():
            raise RuntimeError("a strategy must be set up inside a process group: use `launch`, or init_process_group")
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self.traffic = Traffic(device)

    def all_reduce(self, tensor: Tensor) -> Pending:
        """Sum `tensor` over all ranks, in place."""
        transfer = self.traffic.start("all_reduce", tensor.nbytes)
        return self._pending(transfer, [dist.all_reduce(tensor, group=self.group, async_op=True)])

    def broadcast(self, tensor: Tensor, root: int) -> Pending:
        """Copy the bytes of `tensor` on rank `root` into that of all others; contiguous, any dtype."""
        transfer = self.traffic.start("broadcast", tensor.nbytes)
        # As bytes, because no backend knows all dtypes.
        work = dist.broadcast(tensor.view(-1).view(torch.uint8), group=self.group, group_src=root, async_op=True)
        return self._pending(transfer, [work])

    def all_gather(self, full: Tensor) -> Pending:
        """Complete `full` on every rank, of which rank r has filled the r-th of `size` equal slices; in place."""
        transfer = self.traffic.start("all_gather", full.nbytes)
        slices = full.view(self.size, -1)
        if full.is_cuda:
            works = [versions.all_gather(full, slices[self.rank], group=self.group, async_op=True)]
        else:
            works = [
                dist.broadcast(each, group=self.group, group_src=root, async_op=True)
                for root, each in enumerate(slices)
            ]
        return self._pending(transfer, works)

    def reduce_scatter(self, shard: Tensor, full: Tensor) -> Pending:
        """Write into `shard` the sum over all ranks of their r-th slice of `full`, r being this rank.

        Args:
            shard: `[n]`, written when the wait is over.
            full: `[size · n]`, of the same dtype.
        """
        transfer = self.traffic.start("reduce_scatter", full.nbytes)
        if full.is_cuda:
            return self._pending(transfer, [versions.reduce_scatter(shard, full, group=self.group, async_op=True)])
        received = torch.empty_like(full)
        work = dist.all_to_all_single(received, full, group=self.group, async_op=True)

        def add_up() -> None:
            torch.sum(received.view(self.size, -1), dim=0, out=shard)

        return self._pending(transfer, [work], add_up)

    def _pending(
        self, transfer: OpenTransfer, works: Sequence[dist.Work | None], finish: Callable[[], None] | None = None
    ) -> Pending:
        return Pending(self.traffic, transfer, [work for work in works if work is not None], finish)
