"""All gradients in one message, after the backward pass.

The latency is paid once instead of once for each parameter. The price is a second copy of all gradients, and still
nothing is hidden behind the computation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import Parameter

from stepbench.parallel.bucket import by_kind, dense_gradient, set_anywhere
from stepbench.parallel.data_parallel import DataParallel
from stepbench.parallel.replica import Group, Recipe, Replica, Strategy, with_plain_optimizer


class FlatDDP(DataParallel):
    """Data parallelism with one synchronous all-reduce for all gradients; arguments as in `DataParallel`.

    Gradients of different dtypes cannot share a message; there is one for each.
    """

    def _finish(self) -> None:
        for parameters in by_kind(self._trainable):
            self._reduce(parameters)

    @torch.no_grad()
    def _reduce(self, parameters: Sequence[Parameter]) -> None:
        found = [dense_gradient(parameter) for parameter in parameters]
        present = [gradient is not None for gradient in found]
        gradients = [
            torch.zeros_like(each) if own is None else own for each, own in zip(parameters, found, strict=True)
        ]
        flags = torch.tensor(present, dtype=parameters[0].dtype, device=parameters[0].device)
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), flags])
        flat.div_(self.communicator.size)
        self.communicator.all_reduce(flat).wait()
        *means, flags = flat.split([*(parameter.numel() for parameter in parameters), len(parameters)])
        anywhere = set_anywhere(flags, present)
        for parameter, gradient, mean, is_present in zip(parameters, gradients, means, anywhere, strict=True):
            gradient.copy_(mean.view_as(gradient))
            parameter.grad = gradient if is_present else None


def _build(module: nn.Module, recipe: Recipe, group: Group) -> Replica:
    return with_plain_optimizer(FlatDDP(module, group=group), recipe)


STRATEGY = Strategy(_build)
