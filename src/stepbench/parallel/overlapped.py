"""One all-reduce for each parameter, started while the backward pass still computes the gradients before it.

Communication hides behind computation, except for the parameters at the front of the module, whose gradients come last.
Each message still pays its own latency; where the parameters are small, that is more than there is to hide behind.
"""

from __future__ import annotations

import torch
from torch import distributed as dist
from torch import nn

from stepbench.parallel.bucket import dense_gradient
from stepbench.parallel.communicator import Pending
from stepbench.parallel.data_parallel import DataParallel, LaunchOrder, present_anywhere, when_accumulated
from stepbench.parallel.replica import Group, Recipe, Replica, Strategy, with_plain_optimizer


class OverlappedDDP(DataParallel):
    """Data parallelism with one asynchronous all-reduce for each parameter, from hooks; arguments as in `DataParallel`.

    Messages leave in the reverse order of the parameters, which is roughly the order in which gradients appear.
    """

    def __init__(self, module: nn.Module, *, group: dist.ProcessGroup | None = None) -> None:
        super().__init__(module, group=group)
        self._reversed = self._trainable[::-1]
        self._order = LaunchOrder(len(self._reversed))
        self._under_way: list[Pending] = []
        for index, parameter in enumerate(self._reversed):
            when_accumulated(parameter, self._on_gradient, index)

    def _on_gradient(self, index: int) -> None:
        if not self._synchronizes:
            return
        if self._order.is_ready(index):
            raise RuntimeError("finish_gradient_synchronization() must be called before the next backward pass")
        for ready in self._order.mark(index):
            self._launch(self._reversed[ready])

    def _launch(self, parameter: nn.Parameter) -> None:
        gradient = dense_gradient(parameter)
        if gradient is None:
            gradient = parameter.grad = torch.zeros_like(parameter)
        gradient.div_(self.communicator.size)
        self._under_way.append(self.communicator.all_reduce(gradient))

    def _finish(self) -> None:
        present = [parameter.grad is not None for parameter in self._reversed]
        for index in self._order.rest():
            self._launch(self._reversed[index])
        anywhere = present_anywhere(present, self.communicator)
        for pending in self._under_way:
            pending.wait()
        self._under_way.clear()
        for parameter, is_present in zip(self._reversed, anywhere, strict=True):
            if not is_present:
                parameter.grad = None


def _build(module: nn.Module, recipe: Recipe, group: Group) -> Replica:
    return with_plain_optimizer(OverlappedDDP(module, group=group), recipe)


STRATEGY = Strategy(_build)
