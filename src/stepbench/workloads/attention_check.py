"""Attention against float64: output and gradients, with the errors of a plain computation as the measure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from stepbench import own_code
from stepbench.kernels import api
from stepbench.measure.measurement import WrongResultError

CHECKED_ROWS = 128  # query rows that the float64 oracle computes at a time: the scores of a long sequence do not fit
# Scores that it computes in all, beyond two heads: all of 16 heads at 4096 tokens. Most GPUs have so few float64 units
# that those of 16 heads at 16 384 tokens would take half a minute of every cell.
CHECKED_SCORES = 2**28
OWN_SHAPE = {"batch": 2, "heads": 2, "context": 200}  # of a kernel of the user's own; no multiple of a tile


def check_own(where: str, *, device: str, dtype: torch.dtype, head_dim: int, shared: int) -> None:
    """Check a kernel of the user's own, which no test of ours knows, before a step runs with it.

    Args:
        where: `path.py:function`.
        device: where it will run.
        dtype: of q, k and v there.
        head_dim: D.
        shared: how many query heads share a key head.

    Raises:
        WrongResultError: its output or a gradient is not that of attention.
        stepbench.own_code.OwnCodeError: it cannot be loaded, raises, uses the network, or returns something else than
            a tensor like q or something without a gradient.
    """
    key_heads, context = OWN_SHAPE["heads"], OWN_SHAPE["context"]
    made: dict[str, Any] = {"device": device, "dtype": dtype}
    seeded = torch.Generator(device).manual_seed(0)
    shapes = [(OWN_SHAPE["batch"], heads, context, head_dim) for heads in (key_heads * shared, key_heads, key_heads)]
    q, k, v = (torch.randn(shape, generator=seeded, **made).requires_grad_() for shape in shapes)
    upstream = torch.randn(q.shape, generator=seeded, **made)
    own = api.bind(where)
    # Bound by their names: no number comes from them.
    oracles = {"exact": api.bind("reference"), "plain": api.bind("naive")}
    errors(lambda: own(q, k, v, is_causal=True), (q, k, v), upstream, causal=True, impl=where, **oracles)


def errors(
    forward: Callable[[], torch.Tensor],
    inputs: tuple[torch.Tensor, ...],
    upstream: torch.Tensor,
    *,
    causal: bool,
    exact: Callable[..., torch.Tensor],
    plain: Callable[..., torch.Tensor],
    impl: str = "",
) -> dict[str, float]:
    """Return the largest error of output and gradients against float64, beside that of a plain computation.

    Heads do not depend on each other. Of a long context some are checked, evenly spaced, the first one of the first
    sequence and the last one of the last among them: an offset that is wrong shows there.

    Args:
        forward: computes o `[B, H, T, D]` from `inputs`.
        inputs: q `[B, H, T, D]`, k and v `[B, Hkv, T, D]`, which require a gradient.
        upstream: the gradient of o.
        causal: whether a query sees only the keys up to its own position.
        exact: attention that computes in float64.
        plain: attention in the inputs' dtype whose errors are the measure.
        impl: the name of what `forward` runs, where that may be a kernel of the user's own.

    Returns:
        `<tensor>_error` and `<tensor>_plain_error` of o, dq, dk and dv, and `checked_heads` of B times H.

    Raises:
        WrongResultError: one is more than twice the plain computation's error and a rounding band, so what would be
            timed is not attention.
        stepbench.own_code.OwnCodeError: code of the user's own raises or uses the network, forward or backward.
    """
    key_heads = inputs[1].shape[1]
    picked = _picked(upstream, key_heads)
    found = [_heads(tensor, key_heads, picked) for tensor in _computed(forward, inputs, upstream, impl)]
    operands = [_heads(tensor.detach(), key_heads, picked) for tensor in (*inputs, upstream)]
    device = "cpu" if upstream.device.type == "mps" else upstream.device  # MPS has no float64
    truth = by_rows(exact, [tensor.to(device, torch.float64) for tensor in operands], causal=causal)
    simple = by_rows(plain, operands, causal=causal)
    # A score is an exponent: one that is off by δ makes its probability off by 1 + δ. It is float32 at least.
    q, k = (tensor.to(torch.float32).norm(dim=-1).max() for tensor in operands[:2])
    through_scores = 2 * torch.finfo(torch.float32).eps * float(q * k) * operands[0].shape[-1] ** -0.5
    told: dict[str, float] = {"checked_heads": operands[0].shape[0] * operands[0].shape[1]}
    for name, ours, true, other in zip(("o", "dq", "dk", "dv"), found, truth, simple, strict=True):
        error = float((ours.to(true) - true).abs().max())
        plain_error = float((other.to(true) - true).abs().max())
        band = (4 * torch.finfo(ours.dtype).eps + through_scores) * float(true.abs().max())
        if not error <= 2 * plain_error + band:
            raise WrongResultError(
                f"{name} must be within 2 × {plain_error:.3g} + {band:.3g} of float64, got an error of {error:.3g}"
            )
        told |= {f"{name}_error": error, f"{name}_plain_error": plain_error}
    return told


def _computed(
    forward: Callable[[], torch.Tensor], inputs: tuple[torch.Tensor, ...], upstream: torch.Tensor, impl: str
) -> tuple[torch.Tensor, ...]:
    """Return o and the gradients of `inputs`."""
    # What is timed later has no guard, which would be timed as well.
    with own_code.guarded(impl) if own_code.is_own(impl) else contextlib.nullcontext():
        out = forward()
        return out.detach(), *torch.autograd.grad(out, inputs, upstream)


def _picked(o: torch.Tensor, key_heads: int) -> list[int]:
    """Return which of B times Hkv key heads are checked, with the query heads that share them."""
    batch, heads, context, _ = o.shape
    count = batch * key_heads
    most = min(count, max(2, CHECKED_SCORES // (heads // key_heads * context**2)))
    return [round(index * (count - 1) / max(1, most - 1)) for index in range(most)]


def _heads(tensor: torch.Tensor, key_heads: int, picked: list[int]) -> torch.Tensor:
    """Return `[picked, heads for each key head, T, D]` of a tensor `[B, heads, T, D]`."""
    return tensor.unflatten(1, (key_heads, -1)).flatten(0, 1)[picked]


def by_rows(
    attend: Callable[..., torch.Tensor], operands: Sequence[torch.Tensor], *, causal: bool
) -> tuple[torch.Tensor, ...]:
    """Return o, dq, dk, dv of attention for q, k, v and do, by blocks of query rows, so that any length fits.

    A causal block sees the keys up to its last row, which is how `attention` aligns what is not square.
    """
    q, k, v, upstream = operands
    o, dq, dk, dv = (torch.zeros_like(operand) for operand in (q, q, k, v))
    for start in range(0, q.shape[-2], CHECKED_ROWS):
        stop = min(start + CHECKED_ROWS, q.shape[-2])
        seen = stop if causal else k.shape[-2]
        parts = [q[:, :, start:stop], k[:, :, :seen], v[:, :, :seen]]
        inputs = [part.detach().requires_grad_() for part in parts]
        out = attend(*inputs, is_causal=causal)
        o[:, :, start:stop] = out.detach()
        found = torch.autograd.grad(out, inputs, upstream[:, :, start:stop])
        for whole, part in zip((dq[:, :, start:stop], dk[:, :, :seen], dv[:, :, :seen]), found, strict=True):
            whole += part
    return o, dq, dk, dv
