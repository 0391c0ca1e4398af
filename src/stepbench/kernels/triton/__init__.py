"""FlashAttention-2 as Triton kernels, forward and backward.

    primitives   tiles: find, load, multiply, store           tiles, tiles.json   which tile shape for which device
    forward      the fused forward kernel                     tune, candidates    measure shapes, rewrite the table
    backward     row statistics, two passes, or one           compiling           registers and instructions, no GPU
    layouts      what tensors the kernels can read            resources           what every shipped kernel compiles to
    launch       grids, descriptors                           limits              what limits them on an H100, predicted
    operator     the torch operator and its gradient          measured            their times, to refit the prediction
    gluon_forward  experimental, never run

This file imports none of them, so that asking whether Triton can run needs no Triton.
"""

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from stepbench import versions
from stepbench.kernels.contract import (
    SIXTEEN_BIT,
    UP_TO_SINGLE,
    Answer,
    Case,
    Implementation,
    name_of,
    needs_cuda,
    wrong_dtype,
)
from stepbench.kernels.triton.tiles import MAX_FUSED_HEAD_DIM, MAX_TURING_HEAD_DIM, split_head_dim


def unsupported(case: Case) -> str | None:
    """Tell why a case cannot run: Triton, and a device of compute capability 8.0 or newer, or 7.5 for float16."""
    if reason := needs_cuda("triton", case):
        return reason
    if importlib.util.find_spec("triton") is None:
        return "triton needs the triton package, got none"
    if versions.triton_interprets():
        return "triton needs compiled kernels, got TRITON_INTERPRET in the environment"
    if torch.version.hip:
        return f"triton needs a GPU of NVIDIA, for which its kernels and tiles are made, got ROCm {torch.version.hip}"
    capability = torch.cuda.get_device_capability(case.device)
    needed = (7, 5) if case.dtype == torch.float16 else (8, 0)
    if capability < needed:
        return (
            f"triton needs compute capability {needed[0]}.{needed[1]} or newer for {name_of(case.dtype)}, "
            f"got {capability[0]}.{capability[1]}"
        )
    if capability < (8, 0) and case.head_dim > MAX_TURING_HEAD_DIM:
        return (
            f"triton needs a head dim of at most {MAX_TURING_HEAD_DIM} on compute capability 7.5, got {case.head_dim}"
        )
    return wrong_dtype("triton", case, UP_TO_SINGLE)


def _unsupported_with_atomics(case: Case) -> str | None:
    if case.dtype != torch.float32 and case.head_dim > MAX_FUSED_HEAD_DIM:
        return f"triton_atomics needs a head dim of at most {MAX_FUSED_HEAD_DIM}, got {case.head_dim}"
    return unsupported(case)


def _unsupported_with_reduction(case: Case) -> str | None:
    if reason := wrong_dtype("triton_reduced", case, SIXTEEN_BIT) or unsupported(case):
        return reason
    if case.head_dim > MAX_FUSED_HEAD_DIM or split_head_dim(case.head_dim)[1]:
        return (
            f"triton_reduced needs a head dim of at most {MAX_FUSED_HEAD_DIM} that is loaded in one piece, such as 64 "
            f"or 128, got {case.head_dim}"
        )
    capability = torch.cuda.get_device_capability(case.device)
    if capability[0] != 9:
        return f"triton_reduced needs compute capability 9.0, got {capability[0]}.{capability[1]}"
    return None


def _attention(*, atomics: bool = False, reduced: bool = False, one_loop: bool = False) -> Callable[..., Answer]:
    """Return a call of the operator; for the arguments see `operator.attention`."""

    def call(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, return_lse: bool) -> Answer:
        from stepbench.kernels.triton import operator

        return operator.attention(
            q, k, v, is_causal=is_causal, scale=scale, return_lse=return_lse,
            atomics=atomics, reduced=reduced, one_loop=one_loop,
        )  # fmt: skip

    return call


TWO_PASSES = Implementation(_attention(), unsupported)
ATOMICS = Implementation(_attention(atomics=True), _unsupported_with_atomics)
REDUCED = Implementation(_attention(atomics=True, reduced=True), _unsupported_with_reduction)
ONE_LOOP = Implementation(_attention(one_loop=True), unsupported)
