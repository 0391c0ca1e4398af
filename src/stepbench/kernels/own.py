"""Attention kernels of the user's own, by path: `my_kernel.py:attention`."""

import torch
from torch import Tensor

from stepbench import own_code, versions
from stepbench.kernels.contract import Answer, Case, Implementation
from stepbench.own_code import OwnCodeError


def implementation(where: str) -> Implementation:
    """Return the implementation that a function of the user's own is.

    Args:
        where: `path.py:function`; the function takes q [B, H, Tq, D], k and v [B, Hkv, Tk, D] and the keywords
            is_causal and scale, returns o [B, H, Tq, D], and can be differentiated.

    Raises:
        OwnCodeError: it cannot be loaded; when it is called, that it raised, or returned something else.
    """
    function = own_code.load(where)

    def call(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, return_lse: bool) -> Answer:
        assert not return_lse  # noqa: S101 - `unsupported` has said so
        try:
            o = function(q, k, v, is_causal=is_causal, scale=scale)
        except Exception as error:
            if versions.tensors_are_fake():
                raise  # that a fake tensor has no values is no mistake of the function
            raise own_code.raised(where, error) from error
        if not isinstance(o, Tensor) or o.shape != q.shape or o.dtype != q.dtype:
            got = f"{o.dtype} {list(o.shape)}" if isinstance(o, Tensor) else type(o).__name__
            raise OwnCodeError(f"`{where}` must return a tensor like q, {q.dtype} {list(q.shape)}, got {got}")
        if torch.is_grad_enabled() and not o.requires_grad and any(each.requires_grad for each in (q, k, v)):
            raise OwnCodeError(f"`{where}` must return what q, k and v have a gradient of, got no gradient")
        return o

    def unsupported(case: Case) -> str | None:
        return f"{where} does not return the logsumexp, got return_lse=True" if case.return_lse else None

    return Implementation(call, unsupported)
