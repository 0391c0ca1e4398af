"""One all-reduce for each parameter, after the backward pass: the strategy that the others improve on.

Nothing is hidden behind the computation, and each message, however small, pays the full latency.
"""

from __future__ import annotations

import torch
from torch import nn

from stepbench.parallel.bucket import dense_gradient
from stepbench.parallel.data_parallel import DataParallel, present_anywhere
from stepbench.parallel.replica import Group, Recipe, Replica, Strategy, with_plain_optimizer


class NaiveDDP(DataParallel):
    """Data parallelism with one synchronous all-reduce for each parameter; arguments as in `DataParallel`.

    Messages in a step: one for each parameter that has a gradient on any rank, and one that says which these are.
    """

    def _finish(self) -> None:
        has_gradient = [dense_gradient(parameter) is not None for parameter in self._trainable]
        present = present_anywhere(has_gradient, self.communicator)
        for parameter, is_present in zip(self._trainable, present, strict=True):
            if not is_present:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            # Divided before the sum: the sum of many ranks' float16 gradients may overflow where their mean does not.
            parameter.grad.div_(self.communicator.size)
            self.communicator.all_reduce(parameter.grad).wait()


def _build(module: nn.Module, recipe: Recipe, group: Group) -> Replica:
    return with_plain_optimizer(NaiveDDP(module, group=group), recipe)


STRATEGY = Strategy(_build)
