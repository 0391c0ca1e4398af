"""What a model of the user's own is found to be: its parameters, its FLOPs, and that it is a language model at all.

It runs once on fake tensors, which have shapes and no values, so that nothing is computed; where its code needs values,
on a few real tokens. FLOPs are those that torch's own counter finds in matrix products and convolutions, with naive
attention, which multiplies the full T×T as the convention of `stepbench.models.costs` has it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from stepbench.kernels import api
from stepbench.models import own_module
from stepbench.models.own import OwnModel
from stepbench.own_code import OwnCodeError, guarded
from stepbench.versions import FakeTensorMode, TorchDispatchMode

FEW_TOKENS = 16
# Namespaces of torch's own operators; of others the counter knows nothing.
_KNOWN = {"aten", "prim", "prims", "c10d", "_c10d_functional"}


@dataclass(frozen=True)
class Examined:
    """What is known of a model of the user's own.

    Attributes:
        parameters: how many.
        forward_flops: of one forward pass over the batch; None if nobody knows.
        backward_flops: likewise.
        unknown: why the FLOPs are not known, or None.
    """

    parameters: int
    forward_flops: int | None
    backward_flops: int | None
    unknown: str | None = None


@functools.cache
def examine(own: OwnModel, *, vocabulary: int, batch: int, context: int) -> Examined:
    """Build a model and run one step of it on fake tensors, or on a few real tokens.

    Raises:
        OwnCodeError: it cannot be built, raises, returns something else than logits or a loss, has no gradient, or
            uses the network; one sentence.
    """
    shape = {"vocabulary": vocabulary, "batch": batch, "context": context}
    try:
        with FakeTensorMode():
            return _step(own, **shape)
    except OwnCodeError as error:
        cause = error.__cause__
        if cause is None:
            raise
    # What raises on fake tensors may do so because they have no values.
    found = _step(own, vocabulary=vocabulary, batch=1, context=min(context, FEW_TOKENS))
    line = next(iter(str(cause).strip().splitlines()), "")
    reason = f"the model does not run without values: {type(cause).__name__}: {line}"
    return Examined(found.parameters, None, None, reason)


class _Operators(TorchDispatchMode):
    """Collects the operators that run and that are not torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace not in _KNOWN:
            self.foreign[str(func)] = None
        return func(*args, **(kwargs or {}))


def _step(own: OwnModel, *, vocabulary: int, batch: int, context: int) -> Examined:
    naive, device = api.bind("naive"), "cpu"
    torch.manual_seed(0)
    model = own_module.build(
        own, vocabulary=vocabulary, context=context, attention=naive, dtype=torch.float32, device=device
    )
    tokens = torch.randint(vocabulary, (batch, context), device=device)
    with guarded(own.source), _Operators() as operators:
        with FlopCounterMode(display=False) as forward:
            loss = model(tokens, tokens)
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    if not any(parameter.grad is not None for parameter in model.parameters()):
        raise OwnCodeError(f"`{own.source}` must return what its parameters have a gradient of, and none has one")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if operators.foreign:
        names = ", ".join(operators.foreign)
        return Examined(parameters, None, None, f"torch's counter does not know the FLOPs of {names}")
    return Examined(parameters, forward.get_total_flops(), backward.get_total_flops())
