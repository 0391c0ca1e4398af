"""The norm of gradients of which each rank has a slice: without the other slices, every rank has another norm.

Whoever clips gradients by such norms scales each rank's by another factor, and what is replicated drifts apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stepbench import versions
from stepbench.parallel.communicator import Communicator


class ShardGradient(Tensor):
    """This rank's slice of a gradient, whose norm is that of the whole.

    `torch.nn.utils.clip_grad_norm_` and `get_total_norm` need no more to be right. To take the norm is a collective of
    one small message for each gradient; everything else is done with the slice, and gives plain tensors.

    Attributes:
        communicator: the ranks that have the other slices.
    """

    communicator: Communicator

    @classmethod
    def of(cls, part: Tensor, communicator: Communicator) -> Tensor:
        """Return a slice `[n]`, n from 0, that knows where the others are; it shares the memory of `part`."""
        if type(part) is not Tensor:  # a fake one, which has no values and cannot be of two classes
            return part
        found = part.as_subclass(cls)
        found.communicator = communicator
        return found

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        more = dict(kwargs or {})
        with versions.plain_tensors():
            if function is versions.foreach_norm:
                gradients, *order = args
                return [_norm(each, *order, **more) for each in gradients]
            if function is torch.linalg.vector_norm:
                return _norm(*args, **more)
            return function(*args, **more)

    # Both would make the same class again without its ranks, of which a copy or a file knows nothing.
    def __deepcopy__(self, _: Any) -> Tensor:
        return self.detach().clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().__reduce_ex__(protocol)


def over_ranks(norm: Tensor, order: float, communicator: Communicator) -> Tensor:
    """Return the norm of what all ranks have together, from that of what this rank has; scalars, a collective."""
    norms = norm.new_zeros(communicator.size)
    norms[communicator.rank] = norm
    communicator.all_gather(norms).wait()
    return local_norm(norms, order)


def local_norm(values: Tensor, order: float) -> Tensor:
    """Return a norm of what stands here; of nothing it is 0, which torch refuses for infinity."""
    return torch.linalg.vector_norm(values, order) if values.numel() else values.new_zeros(())


def _norm(gradient: Tensor, order: float = 2.0, *args: Any, **kwargs: Any) -> Tensor:
    """Return the norm of a whole gradient; of one that is no slice, torch's."""
    if not isinstance(gradient, ShardGradient):
        return torch.linalg.vector_norm(gradient, order, *args, **kwargs)
    order = kwargs.pop("ord", order)
    if order == 0 or args or any(each is not None for name, each in kwargs.items() if name != "keepdim"):
        raise ValueError("the norm of a sharded gradient must be of the whole and of an order above 0, without options")
    return over_ranks(local_norm(gradient.detach(), order), order, gradient.communicator)
