"""torch.nn.functional.scaled_dot_product_attention: torch's own choice, and each of its backends by name.

A named backend is the only one allowed while it runs. Where torch finds that it cannot, that is an
`UnsupportedAttention` with torch's reasons, never another backend under its name.

Trap: torch aligns ``is_causal`` at the first key, this package at the last one. They agree where Tq = Tk. Elsewhere
flash and efficient get torch's lower-right bias, which their kernels know, and the others an explicit mask.
"""

import contextlib
import functools
import warnings
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stepbench.kernels.contract import (
    SIXTEEN_BIT,
    UP_TO_DOUBLE,
    UP_TO_SINGLE,
    Answer,
    Case,
    Implementation,
    UnsupportedAttention,
    needs_cuda,
    visible_keys,
    wrong_dtype,
)

BACKENDS = {
    "sdpa": None,
    "sdpa_math": SDPBackend.MATH,
    "sdpa_flash": SDPBackend.FLASH_ATTENTION,
    "sdpa_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION,
}
# Kernels that know a causal mask aligned at the last key, on a GPU.
LOWER_RIGHT = ("sdpa_flash", "sdpa_efficient")
# Of torch's warnings: headings, and what it says of the backends that are not asked for.
OF_OTHERS = ("kernel not used because:", "has been runtime disabled.")


@functools.lru_cache(maxsize=8)
def _mask(q_len: int, k_len: int, device: torch.device) -> Tensor:
    """Keep the mask of a shape, so that a measurement does not pay for building it."""
    return visible_keys(q_len, k_len, device)


def attention(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, return_lse: bool, name: str) -> Answer:
    """Compute attention with one backend of torch. For the contract see `api.attention`.

    Raises:
        UnsupportedAttention: torch's kernel turned these tensors down.
    """
    assert not return_lse  # noqa: S101 - `unsupported` has said so
    q_len, k_len = q.shape[-2], k.shape[-2]
    options: dict[str, object] = {"scale": scale, "enable_gqa": q.shape[1] != k.shape[1]}
    if is_causal and q_len == k_len:
        options["is_causal"] = True
    elif is_causal and q.is_cuda and name in LOWER_RIGHT:
        from torch.nn.attention.bias import causal_lower_right  # late: it takes torch._dynamo's 2 s with it

        options["attn_mask"] = causal_lower_right(q_len, k_len)
    elif is_causal:
        options["attn_mask"] = _mask(q_len, k_len, q.device)
    backend = BACKENDS[name]
    with sdpa_kernel(backend) if backend else nullcontext():
        try:
            return F.scaled_dot_product_attention(q, k, v, **options)  # type: ignore[arg-type]
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or not _turns_down(str(error)):
                raise
            said = _reasons(q, k, v, options)
            raise UnsupportedAttention(f"{name} cannot take these inputs: {said or error}") from error


def _turns_down(text: str) -> bool:
    """Return whether an error says that a backend has no kernel for the inputs, and not that one has failed."""
    # "CUDA error: an illegal memory access … CUDA kernel errors might be …" is a failure.
    return "CUDA error" not in text and any(word in text for word in ("backend", "kernel", "execution plan"))


def _reasons(q: Tensor, k: Tensor, v: Tensor, options: dict[str, object]) -> str:
    """Ask torch once more, and return the warnings in which it says why.

    Not around every call: torch.compile cannot trace `catch_warnings`, and would cut the model's graph at each layer.
    """
    with warnings.catch_warnings(record=True) as reasons:
        warnings.simplefilter("always")
        with contextlib.suppress(RuntimeError):
            F.scaled_dot_product_attention(q, k, v, **options)  # type: ignore[arg-type]
    told = (str(reason.message).split(" (Triggered")[0] for reason in reasons)
    return "; ".join(reason for reason in told if not reason.endswith(OF_OTHERS))


def unsupported(case: Case, name: str) -> str | None:
    """Tell why a case cannot run, as far as it can be known without the tensors."""
    if case.return_lse:
        return f"{name} does not return the logsumexp, got return_lse=True"
    if name in ("sdpa", "sdpa_math"):
        return wrong_dtype(name, case, UP_TO_DOUBLE)
    if name == "sdpa_flash" and case.device.type == "cpu":
        return wrong_dtype(name, case, UP_TO_DOUBLE)
    if reason := needs_cuda(name, case):
        return reason
    if case.has_blind_rows:
        return f"{name} needs a key for every query, got {case.q_len} causal queries and {case.k_len} keys"
    if case.grouped and name == "sdpa_efficient":
        return f"{name} needs as many key heads as query heads"
    return wrong_dtype(name, case, UP_TO_SINGLE if name == "sdpa_efficient" else SIXTEEN_BIT)


def _named(name: str) -> Implementation:
    return Implementation(functools.partial(attention, name=name), functools.partial(unsupported, name=name))


SDPA, MATH, FLASH, EFFICIENT, CUDNN = map(_named, BACKENDS)
