"""What a model of the user's own is found to be: its parameters, its FLOPs, and that it is a language model at all.

It runs once on fake tensors, which have shapes and no values, so that nothing is computed; where its code needs values,
on a few real tokens. FLOPs are those that torch's own counter finds in matrix products and convolutions, with naive
attention, which multiplies the full T×T as the convention of `stepbench.models.costs` has it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stepbench.kernels import api
from stepbench.models import own_module
from stepbench.models.layers import Attention
from stepbench.models.own import OwnModel
from stepbench.models.own_module import OwnModule
from stepbench.own_code import OwnCodeError, guarded
from stepbench.versions import FakeTensorMode, TorchDispatchMode
from stepbench.workloads.lookups import BeyondTableError, Lookups

FEW_TOKENS, FEW_BLOCKS = 16, 2
CHEAP_FLOPS = 5e10  # half a second of a CPU's
MOST_CONTEXT = 2**20  # that is looked for
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
        masked_flops: of the forward pass, scores and values that a causal mask makes needless; None of a model whose
            attention is its own.
        drawn: the operators in it that draw random numbers, although the model is in evaluation mode.
    """

    parameters: int
    forward_flops: int | None
    backward_flops: int | None
    unknown: str | None = None
    masked_flops: int | None = None
    drawn: tuple[str, ...] = ()


@functools.cache
def examine(own: OwnModel, *, vocabulary: int, batch: int, context: int) -> Examined:
    """Build a model and run one step of it on fake tensors, or on a few real tokens.

    Raises:
        OwnCodeError: it cannot be built, raises, returns something else than logits or a loss, has no gradient, draws
            random numbers that change the loss, or uses the network; one sentence.
    """
    found = _run(own, vocabulary=vocabulary, batch=batch, context=context)
    if found.drawn:
        _refuse_randomness(own, vocabulary=vocabulary, context=context, drawn=found.drawn)
    return found


def _run(own: OwnModel, *, vocabulary: int, batch: int, context: int) -> Examined:
    shape = {"vocabulary": vocabulary, "batch": batch, "context": context}
    try:
        with FakeTensorMode(), Lookups():
            return _step(own, **shape)
    except OwnCodeError as error:
        cause = error.__cause__
        if isinstance(cause, BeyondTableError):
            raise OwnCodeError(f"`{own.source}` must run at a context of {context}, and there {cause}") from None
        if cause is None:
            raise
    # What raises on fake tensors may do so because they have no values.
    found = _step(own, vocabulary=vocabulary, batch=1, context=min(context, FEW_TOKENS))
    if context > FEW_TOKENS and 2 * found.parameters * context <= CHEAP_FLOPS:
        model, tokens = _built(own, vocabulary=vocabulary, batch=1, context=context)  # it may have fewer positions
        with guarded(own.source), torch.no_grad():
            model(tokens, tokens)
    line = next(iter(str(cause).strip().splitlines()), "")
    reason = f"the model does not run without values: {type(cause).__name__}: {line}"
    return Examined(found.parameters, None, None, reason, drawn=found.drawn)


def _refuse_randomness(own: OwnModel, *, vocabulary: int, context: int, drawn: tuple[str, ...]) -> None:
    """Run a model that draws random numbers twice, on a few real tokens and with few blocks where that can be chosen.

    What two computations may differ by is measured, so a model that differs from itself would hide a wrong step.

    Raises:
        OwnCodeError: it has returned two losses; one sentence.
    """
    few = dataclasses.replace(own, layers=FEW_BLOCKS)
    model, tokens = _built(few, vocabulary=vocabulary, batch=1, context=min(context, FEW_TOKENS))
    with guarded(own.source), torch.no_grad():
        first, second = (float(model(tokens, tokens)) for _ in range(2))
    if first != second and not math.isnan(first):  # that a loss is not a number is found when it is looked at
        raise OwnCodeError(
            f"`{own.source}` must return the same loss for the same tokens in evaluation mode, got {first!r} and "
            f"{second!r}; random numbers come from {', '.join(drawn)}"
        )


@functools.cache
def most_context(own: OwnModel, *, vocabulary: int) -> int | None:
    """Return the longest context at which a model runs; None where that is `MOST_CONTEXT` or more, or nobody knows.

    On fake tensors, which take no memory however long the context. The model must run at each shorter one.
    """

    @functools.cache
    def runs(context: int) -> bool:
        try:
            with FakeTensorMode(), Lookups():
                model, tokens = _built(own, vocabulary=vocabulary, batch=2, context=context)
                with guarded(own.source):
                    model(tokens, tokens)
        except OwnCodeError:
            return False
        return True

    if runs(MOST_CONTEXT) or not runs(FEW_TOKENS):
        return None
    low = FEW_TOKENS
    while runs(2 * low):
        low *= 2
    high = 2 * low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if runs(middle) else (low, middle)
    return low


class _Operators(TorchDispatchMode):
    """Collects the operators that run and that are not torch's own, and those that draw random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: dict[str, None] = {}
        self.drawn: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace not in _KNOWN:
            self.foreign[str(func)] = None
        if torch.Tag.nondeterministic_seeded in func.tags and not _without_dropout(func, args, kwargs or {}):
            self.drawn[str(func)] = None
        return func(*args, **(kwargs or {}))


class _Attention:
    """Naive attention that counts what a causal mask makes needless: scores and values of later keys."""

    def __init__(self) -> None:
        self.masked_flops = 0
        self._call = api.bind("naive")

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
        if is_causal:
            pairs = q.shape[0] * q.shape[1] * (q.shape[2] * (q.shape[2] - 1) // 2)
            self.masked_flops += 2 * 2 * pairs * q.shape[3]
        return self._call(q, k, v, is_causal=is_causal)


def _without_dropout(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether an operator, such as fused attention, draws random numbers for a dropout alone, and has none."""
    given = dict(zip((each.name for each in func._schema.arguments), args, strict=False)) | dict(kwargs)
    return any(each.name == "dropout_p" and not given.get("dropout_p", 0.0) for each in func._schema.arguments)


def _step(own: OwnModel, *, vocabulary: int, batch: int, context: int) -> Examined:
    attention = _Attention()
    model, tokens = _built(own, vocabulary=vocabulary, batch=batch, context=context, attention=attention)
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
        reason = f"torch's counter does not know the FLOPs of {names}"
        return Examined(parameters, None, None, reason, drawn=tuple(operators.drawn))
    return Examined(
        parameters,
        forward.get_total_flops(),
        backward.get_total_flops(),
        masked_flops=attention.masked_flops if own_module.takes_attention(own) else None,
        drawn=tuple(operators.drawn),
    )


def _built(
    own: OwnModel, *, vocabulary: int, batch: int, context: int, attention: Attention | None = None
) -> tuple[OwnModule, Tensor]:
    """Return a model with naive attention where no other is given, and random tokens `[batch, context]`."""
    torch.manual_seed(0)
    given = attention or api.bind("naive")
    made: dict[str, Any] = {"attention": given, "dtype": torch.float32, "device": "cpu"}
    model = own_module.build(own, vocabulary=vocabulary, context=context, **made)
    return model, torch.randint(vocabulary, (batch, context))
