"""Saved activations: the tensors that autograd saves for the backward pass, by operation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Saved:
    """The tensors saved by all operations of one name.

    Attributes:
        operation: autograd's name of the operation, such as `Softmax`.
        calls: number of operations of that name.
        saved_bytes: bytes of the storages that they save and no earlier operation has saved.
    """

    operation: str
    calls: int
    saved_bytes: int


def by_operation(output: Tensor, *, without: Iterable[Tensor]) -> list[Saved]:
    """Return the saved tensors of the operations that computed `output`, in the order of their first call.

    Each storage counts once, for the first operation that saves it. Operations that save nothing are listed too.

    Args:
        output: a tensor with an autograd graph.
        without: tensors not to count, such as parameters and inputs.
    """
    seen = {tensor.untyped_storage()._cdata for tensor in without}
    found: dict[str, list[int]] = {}
    for node in _in_order(output.grad_fn):
        totals = found.setdefault(re.sub(r"Backward\d*$", "", node.name()), [0, 0])
        totals[0] += 1
        for tensor in _kept(node):
            storage = tensor.untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                totals[1] += storage.nbytes()
    return [Saved(operation, calls, saved_bytes) for operation, (calls, saved_bytes) in found.items()]


def _in_order(last: Any) -> list[Any]:
    """Return the nodes of a graph in order of creation, without those that accumulate parameter gradients."""
    found: dict[Any, None] = {}
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node is None or node in found or node.name().endswith("AccumulateGrad"):
            continue
        found[node] = None
        waiting.extend(following for following, _ in node.next_functions)
    return sorted(found, key=lambda node: node._sequence_nr())


def _kept(node: Any) -> Iterable[Tensor]:
    for name in dir(node):
        if name.startswith("_saved_"):
            value = getattr(node, name)
            yield from (each for each in (value if isinstance(value, list | tuple) else [value]) if _is_tensor(each))
    yield from getattr(node, "saved_tensors", ())  # for a torch.autograd.Function


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)
