"""The kernels as torch operators: with fake versions, so that torch.compile can pass them by, and with a gradient."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stepbench.architectures import architecture_of
from stepbench.kernels.contract import Answer, NoSecondDerivative, name_of
from stepbench.kernels.triton import launch
from stepbench.kernels.triton.layouts import empty_like_rows, padded, without_padding
from stepbench.kernels.triton.tiles import Plan, plan_for


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    is_causal: bool,
    scale: float,
    return_lse: bool,
    atomics: bool = False,
    reduced: bool = False,
    one_loop: bool = False,
    plan: Plan | None = None,
) -> Answer:
    """Compute attention with the Triton kernels. For the contract see `api.attention`.

    With `atomics` the backward pass sums dq by additions in memory: fewer products, and not the same bits twice. With
    `reduced` as well, the copy engine makes them. With `one_loop` the forward pass has a single loop. The tile shapes
    are those of `plan`, or of this device's table.
    """
    if plan is None:
        grouped = q.shape[1] != k.shape[1]
        text = shipped_plan(q.device, q.shape[-1], q.dtype, is_causal, grouped, one_loop, reduced)
    else:
        text = replace(plan, one_loop=one_loop, reduced=reduced).to_text()
    o, lse = attention_forward(q, k, v, scale, is_causal, atomics, text)
    return (o, lse) if return_lse else o


@torch.compiler.assume_constant_result  # torch.compile cannot trace files and device queries, and need not
def shipped_plan(
    device: torch.device,
    head_dim: int,
    dtype: torch.dtype,
    is_causal: bool,
    grouped: bool,
    one_loop: bool,
    reduced: bool,
) -> str:
    """Return the plan of the table for a device, as text."""
    architecture = architecture_of(torch.cuda.get_device_capability(device))
    plan = plan_for(architecture, head_dim, name_of(dtype), is_causal, grouped=grouped)
    return replace(plan, one_loop=one_loop, reduced=reduced).to_text()


@torch.library.custom_op("stepbench::attention_forward", mutates_args=())
def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, scale: float, is_causal: bool, atomics: bool, plan: str
) -> tuple[Tensor, Tensor]:
    """Return o and lse; `atomics` is for the gradient."""
    queries, keys, values = padded(q, k, v)
    o, lse = launch.forward(queries, keys, values, scale, is_causal, Plan.from_text(plan))
    return without_padding(o, q), lse


@attention_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, scale: float, is_causal: bool, atomics: bool, plan: str
) -> tuple[Tensor, Tensor]:
    return empty_like_rows(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("stepbench::attention_backward", mutates_args=())
def attention_backward(
    do: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor,
    scale: float, is_causal: bool, atomics: bool, plan: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return dq, dk, dv."""
    do, queries, keys, values, o = padded(do, q, k, v, o)
    dq, dk, dv = launch.backward(
        do, dlse, queries, keys, values, o, lse, scale, is_causal, Plan.from_text(plan), atomics=atomics
    )
    return without_padding(dq, q), without_padding(dk, k), without_padding(dv, v)


@attention_backward.register_fake
def _(
    do: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor,
    scale: float, is_causal: bool, atomics: bool, plan: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return empty_like_rows(q), empty_like_rows(k), empty_like_rows(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, do: Tensor | None, dlse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, o, lse = ctx.saved_tensors
    do = torch.zeros_like(o) if do is None else do
    return *attention_backward(do, dlse, q, k, v, o, lse, *ctx.options), None, None, None, None


def _refuse(ctx: Any, *gradients: Tensor) -> None:
    raise NoSecondDerivative("triton")


attention_forward.register_autograd(_differentiate, setup_context=_keep)
attention_backward.register_autograd(_refuse)
