"""`naive` through torch.compile: what fusion alone buys, with the score matrix still in memory.

Compiled for each shape by itself (``dynamic=False``) and whole (``fullgraph=True``): where torch.compile would give
up and go back to the plain code, it raises instead. The first call of a shape compiles, which takes seconds.
"""

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from stepbench.kernels import naive
from stepbench.kernels.contract import UP_TO_DOUBLE, Answer, Case, Implementation, wrong_dtype


@functools.cache
def _compiled() -> Callable[..., Answer]:
    return torch.compile(naive.attention, dynamic=False, fullgraph=True)


def attention(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, return_lse: bool) -> Answer:
    """Compute `naive.attention`, compiled. For the contract see `api.attention`."""
    return _compiled()(q, k, v, is_causal=is_causal, scale=scale, return_lse=return_lse)


def unsupported(case: Case) -> str | None:
    """Tell why a case cannot run: torch.compile writes Triton for a GPU, and C++ for a CPU."""
    if case.device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "compiled needs the triton package, got none"
    if case.device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        return "compiled needs a C++ compiler on the CPU, got none on the PATH"
    return wrong_dtype("compiled", case, UP_TO_DOUBLE)


IMPLEMENTATION = Implementation(attention, unsupported)
