"""The Triton kernels in Triton's interpreter, in a process of their own.

Triton reads TRITON_INTERPRET when a kernel is decorated, its own library's included, so that a process has either
interpreted or compiled kernels. A worker that starts with the variable set leaves this process as it is: compile
tests and interpreter tests run side by side, under xdist as well, where every worker of xdist has one such process.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import torch
from tests.testing.oracles import Problem, differentiate
from torch import Tensor

Call = Callable[..., Any]


@contextmanager
def interpreter() -> Iterator[Call]:
    """Yield a function that calls another one in the process with interpreted kernels."""
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            pool.submit(os.getpid).result()  # the process starts now, while the variable is set
        finally:
            if before is None:
                del os.environ["TRITON_INTERPRET"]
            else:
                os.environ["TRITON_INTERPRET"] = before
        yield lambda function, *arguments, **options: pool.submit(function, *arguments, **options).result()


def run(problem: Problem, tile: tuple[int, int] = (32, 32), **options: Any) -> dict[str, Any]:
    """Return o, lse, dq, dk, dv of the Triton kernels as nested lists' arrays, to be called through `interpreter`.

    Args:
        problem: what to compute.
        tile: rows and columns of every kernel's tile.
        **options: see `attention`.
    """
    return {name: value.numpy() for name, value in attention(problem, tile, **options).items()}


def attention(
    problem: Problem,
    tile: tuple[int, int],
    *,
    descriptors: bool = True,
    atomics: bool = False,
    reduced: bool = False,
    one_loop: bool = False,
    with_lse: bool = True,
    arrange: str = "contiguous",
) -> dict[str, Tensor]:
    """Run the Triton kernels, forward and backward.

    Args:
        problem: what to compute.
        tile: rows and columns of every kernel's tile.
        descriptors: whether tiles are loaded through tensor descriptors.
        atomics: whether the backward pass is the one with five products.
        reduced: whether that pass adds to dq through a descriptor, with what stands in for the operation here.
        one_loop: whether the forward pass has a single loop.
        with_lse: whether the logsumexp has a gradient too.
        arrange: layout of the inputs in memory, a key of `ARRANGEMENTS`.
    """
    from stepbench.kernels.triton import operator
    from stepbench.kernels.triton.tiles import Plan, Tile

    rows, columns = tile
    shape, reduces = Tile(rows, columns, warps=4, stages=2), Tile(columns, rows, warps=4, stages=2)
    inputs = tuple(ARRANGEMENTS[arrange](x.detach()).requires_grad_() for x in problem.inputs())
    o, lse = operator.attention(
        *inputs,
        is_causal=problem.is_causal,
        scale=problem.scale,
        return_lse=True,
        atomics=atomics,
        reduced=reduced,
        one_loop=one_loop,
        plan=Plan(shape, shape, shape, shape, descriptors, reduces),
    )
    with _reductions() as added:
        found = differentiate(o, lse if with_lse else None, inputs, problem)
    assert bool(added) == reduced, f"{len(added)} additions through a descriptor"
    return found


@contextmanager
def _reductions() -> Iterator[list[str]]:
    """Give the interpreter the addition through a descriptor, which it lacks; yield the kind of each that was made."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    made: list[str] = []

    def create_descriptor_reduce(self: Any, kind: Any, descriptor: Any, value: Any, indices: Any) -> Any:
        made.append(str(kind))
        pointers, mask = descriptor.materialize_pointers(indices)
        before = self.create_masked_load(pointers, mask, None, None, None, False)
        return self.create_masked_store(pointers, TensorHandle(before.data + value.data, value.dtype), mask, None, None)

    InterpreterBuilder.create_descriptor_reduce = create_descriptor_reduce
    try:
        yield made
    finally:
        del InterpreterBuilder.create_descriptor_reduce


def _from_projection(x: Tensor) -> Tensor:
    """Lay out as a projection leaves it: [B, T, H, D] in memory, seen as [B, H, T, D]."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _from_packed(x: Tensor) -> Tensor:
    """Take a slice of a wider tensor, as q of a packed q, k, v is."""
    return torch.cat([x, x], dim=-1)[..., : x.shape[-1]]


def _transposed(x: Tensor) -> Tensor:
    """Put the head dim first in memory, so that its neighbours are far apart."""
    return x.mT.contiguous().mT


def _misaligned(x: Tensor) -> Tensor:
    """Start one element behind a 16-byte boundary."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


ARRANGEMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": Tensor.contiguous,
    "from_projection": _from_projection,
    "from_packed": _from_packed,
    "transposed": _transposed,
    "misaligned": _misaligned,
    "expanded": lambda x: x[:, :1].expand(x.shape),
}
