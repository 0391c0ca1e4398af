"""One attention operator, many implementations: the contract, its checks, and the list of names.

A new implementation is one file that defines an `Implementation`, and one line in `names.IMPLEMENTATIONS`. The file is
imported when it is first asked for, so that a machine without Triton can use the rest.
"""

import importlib
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from stepbench import own_code
from stepbench.kernels import own
from stepbench.kernels.contract import (
    MAX_HEAD_DIM,
    MIN_HEAD_DIM,
    UP_TO_DOUBLE,
    Answer,
    Case,
    Implementation,
    NoSecondDerivative,
    UnsupportedAttention,
    name_of,
)
from stepbench.kernels.names import IMPLEMENTATIONS

__all__ = ["IMPLEMENTATIONS", "NoSecondDerivative", "UnsupportedAttention", "attention", "bind", "unsupported_reason"]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    impl: str = "reference",
    return_lse: bool = False,
) -> Answer:
    """Compute softmax(q kᵀ · scale) v.

    With `is_causal` the mask is aligned at the end: the last query sees every key, and query i the keys up to i + Tk
    − Tq. A query that sees no key gets o = 0 and lse = −∞, and passes no gradient on. Inputs may have any strides.

    Args:
        q: [B, H, Tq, D], float32, bfloat16 or float16; float64 where the implementation has it. D is 8 to 256.
        k: [B, Hkv, Tk, D], of q's dtype and device. H is a multiple of Hkv; heads H/Hkv at a time share a key head.
        v: like k.
        is_causal: whether a query sees only the keys up to its own position.
        scale: positive factor of the scores; 1/√D by default.
        impl: a name of `IMPLEMENTATIONS`, or `path.py:function` (`stepbench.kernels.own`).
        return_lse: whether to return the logsumexp as well.

    Returns:
        o, [B, H, Tq, D] in q's dtype; with `return_lse` also lse, [B, H, Tq] in float32, or float64 for float64. Both
        can be differentiated with respect to q, k and v; of the gradients, only those of naive and reference can be
        again.

    Raises:
        ValueError: an argument breaks the contract, or `impl` is no implementation.
        UnsupportedAttention: `impl` cannot take this device, dtype or shape. It is a ValueError. Nothing else runs
            in its place.
        NoSecondDerivative: a gradient was differentiated that has no gradient.
    """
    _check_tensors(q, k, v)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"`scale` must be positive and finite, got {scale}")
    grouped = q.shape[1] != k.shape[1]
    if reason := _reason(impl, q.device, q.dtype, q.shape[3], q.shape[2], k.shape[2], grouped, is_causal, return_lse):
        raise UnsupportedAttention(reason)
    return _LOADED[impl].call(q, k, v, is_causal=is_causal, scale=scale, return_lse=return_lse)


def bind(impl: str | Implementation) -> Callable[..., Tensor]:
    """Return `attention(q, k, v, *, is_causal)` of one implementation, for a model to hold.

    Without the checks of `attention`: a model's shapes are right by construction, and torch.compile, which can trace
    neither an import nor a lookup by name, gets the model as one graph.

    Args:
        impl: a name of `IMPLEMENTATIONS`, or an implementation itself; ask `unsupported_reason` first.

    Returns:
        A function from q, k, v [B, H, T, D] to o [B, H, T, D] with the scale 1/√D.

    Raises:
        ValueError: `impl` is no implementation.
    """
    call = (impl if isinstance(impl, Implementation) else _implementation(impl)).call

    def bound(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool) -> Tensor:
        return cast(Tensor, call(q, k, v, is_causal=is_causal, scale=q.shape[-1] ** -0.5, return_lse=False))

    return bound


def unsupported_reason(
    impl: str,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    head_dim: int,
    q_len: int = 1024,
    k_len: int | None = None,
    is_causal: bool = False,
    grouped: bool = False,
    return_lse: bool = False,
) -> str | None:
    """Tell why `attention` would raise `UnsupportedAttention`, without any tensor.

    Args:
        impl: a name of `IMPLEMENTATIONS`.
        device: where the tensors would be.
        dtype: of the tensors.
        head_dim: D.
        q_len: Tq.
        k_len: Tk, by default as `q_len`.
        is_causal: as in `attention`.
        grouped: whether H > Hkv.
        return_lse: as in `attention`.

    Returns:
        None if it would run, else one sentence such as "triton needs a CUDA device, got cpu".

    Raises:
        ValueError: `impl` is no implementation.
    """
    k_len = q_len if k_len is None else k_len
    return _reason(impl, torch.device(device), dtype, head_dim, q_len, k_len, grouped, is_causal, return_lse)


_LOADED: dict[str, Implementation] = {}


def _reason(impl: str, *case: Any) -> str | None:
    return _implementation(impl).unsupported(Case(*case))


def _implementation(impl: str) -> Implementation:
    if impl not in _LOADED and own_code.is_own(impl):
        _LOADED[impl] = own.implementation(impl)
    elif impl not in IMPLEMENTATIONS and impl not in _LOADED:
        raise ValueError(f"`impl` must be one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
    if impl not in _LOADED:
        module, _, attribute = IMPLEMENTATIONS[impl].partition(":")
        _LOADED[impl] = getattr(importlib.import_module(module), attribute)
    return _LOADED[impl]


def _check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
    if not q.dim() == k.dim() == v.dim() == 4:
        raise ValueError(f"`q`, `k` and `v` must be [B, heads, T, D], got {shapes}")
    if k.shape != v.shape:
        raise ValueError(f"`k` and `v` must have one shape, got {shapes}")
    if 0 in q.shape or 0 in k.shape:
        raise ValueError(f"`q`, `k` and `v` must not be empty, got {shapes}")
    if q.shape[0] != k.shape[0] or q.shape[-1] != k.shape[-1]:
        raise ValueError(f"`q`, `k` and `v` must have the same batch and head dim, got {shapes}")
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"the heads of `q` must be a multiple of those of `k`, got {shapes}")
    if not MIN_HEAD_DIM <= q.shape[-1] <= MAX_HEAD_DIM:
        raise ValueError(f"the head dim must be {MIN_HEAD_DIM} to {MAX_HEAD_DIM}, got {q.shape[-1]}")
    if len(dtypes := {x.dtype for x in (q, k, v)}) > 1:
        raise ValueError(f"`q`, `k` and `v` must have one dtype, got {', '.join(sorted(map(name_of, dtypes)))}")
    if q.dtype not in UP_TO_DOUBLE:
        raise ValueError(f"the dtype must be one of {', '.join(map(name_of, UP_TO_DOUBLE))}, got {name_of(q.dtype)}")
    if len(devices := {x.device for x in (q, k, v)}) > 1:
        raise ValueError(f"`q`, `k` and `v` must be on one device, got {', '.join(sorted(map(str, devices)))}")
