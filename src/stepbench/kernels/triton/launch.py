"""From tensors to launches: tensor descriptors, grids, and the order of the programs."""

import math
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder
from triton.runtime.jit import JITFunction

from stepbench import versions
from stepbench.kernels.triton import backward as backward_16
from stepbench.kernels.triton import forward as forward_16
from stepbench.kernels.triton import single
from stepbench.kernels.triton.layouts import empty_like_rows, readable
from stepbench.kernels.triton.tiles import CHUNK, Plan, Tile, slice_of, split_head_dim, statistics_rows

LOG2_E = 1 / math.log(2)
PADDING = 128  # the statistics are padded to a multiple of this, so that no kernel needs a mask to read them
DTYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
TENSOR_DESCRIPTOR = versions.tensor_descriptor_type()
INTERPRETED_CACHE_BYTES = 1 << 16  # so small that tests see more than one section


class Sizes(NamedTuple):
    """The numbers that every launch is made of; see `forward.forward` for `offset`."""

    batch: int
    heads: int
    heads_kv: int
    group: int
    q_len: int
    k_len: int
    head_dim: int
    offset: int

    @staticmethod
    def of(q: Tensor, k: Tensor, is_causal: bool) -> "Sizes":
        """Read them off the tensors. Without a mask the offset lies behind every key."""
        (b, h, q_len, head_dim), (_, h_kv, k_len, _) = q.shape, k.shape
        return Sizes(b, h, h_kv, h // h_kv, q_len, k_len, head_dim, k_len - q_len if is_causal else k_len)


class Operands(NamedTuple):
    """What both passes of the backward read: q, k, v, do as `readable` gives them, and the statistics of their rows."""

    sizes: Sizes
    tensors: tuple[Tensor, ...]
    statistics: tuple[Tensor, Tensor]
    descriptors: bool
    scale: float

    @property
    def padded_len(self) -> int:
        """Return the number of rows that the statistics hold for each head."""
        return self.statistics[0].shape[-1]

    def sources(self, tile: Tile) -> list[Any]:
        """Return what a kernel loads the tensors from."""
        q, k, v, do = self.tensors
        return _sources(self.descriptors, (q, tile.rows), (k, tile.columns), (v, tile.columns), (do, tile.rows))


def is_interpreted() -> bool:
    """Tell whether the kernels were decorated for Triton's interpreter (TRITON_INTERPRET=1)."""
    return not isinstance(forward_16.forward, JITFunction)


def forward(q: Tensor, k: Tensor, v: Tensor, scale: float, is_causal: bool, plan: Plan) -> tuple[Tensor, Tensor]:
    """Run the forward kernel.

    Args:
        q: [B, H, Tq, D], D a multiple of 16.
        k: [B, Hkv, Tk, D], on q's device.
        v: like k.
        scale: factor of the scores.
        is_causal: whether the mask aligned at the last key applies.
        plan: tile shapes.

    Returns:
        o, laid out like q, and lse, [B, H, Tq] float32.
    """
    n, tile = Sizes.of(q, k, is_causal), plan.forward
    o = empty_like_rows(q)
    lse = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    descriptors, (q, k, v) = readable(plan, q, k, v)
    pairs = n.batch * n.heads
    programs = triton.cdiv(n.q_len, tile.rows) * pairs
    strides = [_strides(x) for x in (q, k, v, o)]
    numbers = pairs, n.heads, n.group, n.q_len, n.k_len, n.offset, _section(k, n.group)
    with torch.cuda.device_of(q):
        if q.dtype == torch.float32:
            options = _single_options(n, tile)
            single.forward[(programs * _slices(n),)](
                q, k, v, o, lse, *strides, *numbers, *_single_numbers(n), scale * LOG2_E, **options)  # fmt: skip
        else:
            options = _options(q, tile, descriptors) | {"ONE_LOOP": plan.one_loop}
            sources = _sources(descriptors, (q, tile.rows), (k, tile.columns), (v, tile.columns))
            forward_16.forward[(programs,)](*sources, o, lse, *strides, *numbers, scale * LOG2_E, **options)
    return o, lse


def backward(
    do: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor,
    scale: float, is_causal: bool, plan: Plan, *, atomics: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Run the backward kernels.

    Args:
        do: gradient of o.
        dlse: gradient of lse, or None for zeros.
        q: as in `forward`.
        k: likewise.
        v: likewise.
        o: output of `forward`.
        lse: likewise.
        scale: as in `forward`.
        is_causal: likewise.
        plan: likewise.
        atomics: one pass with five products whose dq is summed by atomics, instead of two passes with seven.

    Returns:
        dq, dk, dv, laid out like q, k, v.
    """
    n = Sizes.of(q, k, is_causal)
    dq, dk, dv = (empty_like_rows(x) for x in (q, k, v))
    if atomics:
        dq = torch.zeros_like(dq, dtype=torch.float32)
    descriptors, (q, k, v, do) = readable(plan, q, k, v, do)
    with torch.cuda.device_of(q):
        statistics = row_statistics(n, do, dlse, o, lse, plan)
        operands = Operands(n, (q, k, v, do), statistics, descriptors, scale)
        if atomics:
            tile = plan.backward_reduced if plan.reduced else plan.backward_fused
            assert tile  # noqa: S101 - `unsupported` has said so
            keys_pass(operands, tile, dq, dk, dv, reduced=plan.reduced)
        else:
            keys_pass(operands, plan.backward_keys, None, dk, dv)
            queries_pass(operands, plan.backward_queries, dq)
    return dq.to(q.dtype), dk, dv


def row_statistics(
    n: Sizes, do: Tensor, dlse: Tensor | None, o: Tensor, lse: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    """Return what the passes need for each row: lse in base 2, and D; [B, H, padded Tq] float32."""
    tiles = plan.backward_keys, plan.backward_queries, plan.backward_fused, plan.backward_reduced
    padding = max(PADDING, *(tile.rows for tile in tiles if tile))
    padded_len = triton.cdiv(n.q_len, padding) * padding
    lse_2, delta = torch.empty(2, n.batch, n.heads, padded_len, dtype=torch.float32, device=o.device)
    rows = statistics_rows(n.head_dim)
    main, tail = split_head_dim(n.head_dim)
    backward_16.row_statistics[(padded_len // rows * n.batch * n.heads,)](
        o, do, lse, dlse if dlse is None else dlse.contiguous(), lse_2, delta, _strides(o), _strides(do),
        n.heads, n.q_len, padded_len, HEAD_DIM=n.head_dim, MAIN=main, TAIL=tail, B_R=rows, UPCAST=is_interpreted(),
        **versions.LAUNCH_OPTIONS,
    )  # fmt: skip
    return lse_2, delta


def keys_pass(x: Operands, tile: Tile, dq: Tensor | None, dk: Tensor, dv: Tensor, *, reduced: bool = False) -> None:
    """Run the pass in which a program owns a tile of keys: write dk and dv, and add to dq, float32, if it is given.

    With `reduced` it adds through a descriptor, or with atomics where Triton's interpreter has no such addition.
    """
    n = x.sizes
    pairs = n.batch * n.heads_kv
    programs = triton.cdiv(n.k_len, tile.columns) * pairs
    numbers = pairs, n.heads_kv, n.group, n.q_len, x.padded_len, n.k_len, n.offset, _section(x.tensors[0], 1, n.group)
    strides = [_strides(y) for y in (*x.tensors, dq, dk, dv)]
    scales = x.scale, x.scale * LOG2_E
    if dk.dtype == torch.float32:
        single.backward_keys[(programs * _slices(n),)](
            *x.tensors, dq, dk, dv, *x.statistics, *strides, *numbers, *_single_numbers(n), *scales,
            FUSED=dq is not None, **_single_options(n, tile))  # fmt: skip
    else:
        reduced = reduced and dq is not None and _has_reductions()
        sums = _descriptor(dq, tile.rows, split_head_dim(n.head_dim)[0]) if reduced and dq is not None else dq
        backward_16.backward_keys[(programs,)](
            *x.sources(tile), sums, dk, dv, *x.statistics, *strides, *numbers, *scales,
            GROUPED=n.group > 1, FUSED=dq is not None, REDUCED=reduced,
            **_options(dk, tile, x.descriptors))  # fmt: skip


def _has_reductions() -> bool:
    """Tell whether a descriptor can add to memory; the interpreter's cannot, unless a test has supplied it."""
    return not is_interpreted() or hasattr(InterpreterBuilder, "create_descriptor_reduce")


def queries_pass(x: Operands, tile: Tile, dq: Tensor) -> None:
    """Run the pass in which a program owns a tile of queries: write dq."""
    n = x.sizes
    pairs = n.batch * n.heads
    programs = triton.cdiv(n.q_len, tile.rows) * pairs
    numbers = pairs, n.heads, n.group, n.q_len, x.padded_len, n.k_len, n.offset, _section(x.tensors[1], n.group)
    strides = [_strides(y) for y in (*x.tensors, dq)]
    scales = x.scale, x.scale * LOG2_E
    if dq.dtype == torch.float32:
        single.backward_queries[(programs * _slices(n),)](
            *x.tensors, dq, *x.statistics, *strides, *numbers, *_single_numbers(n), *scales,
            **_single_options(n, tile))  # fmt: skip
    else:
        backward_16.backward_queries[(programs,)](
            *x.sources(tile), dq, *x.statistics, *strides, *numbers, *scales,
            **_options(dq, tile, x.descriptors))  # fmt: skip


def _section(x: Tensor, pairs_per_head: int, heads_per_pair: int = 1) -> int:
    """Return how many (batch, head) pairs can run side by side while what they walk over stays in the cache.

    Args:
        x: one of the two tensors of one size that every program of a pair walks over.
        pairs_per_head: pairs that walk over the same head.
        heads_per_pair: heads that one pair walks over.
    """
    bytes_per_pair = 2 * x.shape[2] * x.shape[3] * x.element_size() * heads_per_pair
    return max(_cache_bytes(x.device) // bytes_per_pair, 1) * pairs_per_head


@cache
def _cache_bytes(device: torch.device) -> int:
    """Return half of the second-level cache, which other traffic shares."""
    if device.type != "cuda":
        return INTERPRETED_CACHE_BYTES
    return int(torch.cuda.get_device_properties(device).L2_cache_size) // 2


def _strides(x: Tensor | None) -> tuple[int, int, int]:
    return (0, 0, 0) if x is None else (x.stride(0), x.stride(1), x.stride(2))


def _sources(descriptors: bool, *operands: tuple[Tensor, int]) -> list[Any]:
    """Return for each tensor what its main chunk and its tail are loaded from; the tail of an undivided row is None."""
    sources: list[Any] = []
    for x, rows in operands:
        main, tail = split_head_dim(x.shape[-1])
        if descriptors:
            sources += [_descriptor(x, rows, main), _descriptor(x, rows, tail) if tail else None]
        else:
            sources += [x, x if tail else None]
    return sources


def _descriptor(x: Tensor, rows: int, width: int) -> Any:
    step = 16 // x.element_size()  # stands in for the stride of a dim of one, which can be anything
    strides = [stride if size > 1 else step for stride, size in zip(x.stride()[:-1], x.shape[:-1], strict=True)]
    return TENSOR_DESCRIPTOR(x, list(x.shape), [*strides, 1], [1, 1, rows, width])


def _options(q: Tensor, tile: Tile, descriptors: bool) -> dict[str, Any]:
    """Return the compile-time arguments that the kernels for 16 bits share."""
    main, tail = split_head_dim(q.shape[-1])
    return {
        "HEAD_DIM": q.shape[-1], "MAIN": main, "TAIL": tail, "B_R": tile.rows, "B_C": tile.columns,
        "DESCRIPTORS": descriptors, "DTYPE": DTYPES[q.dtype], "UPCAST": is_interpreted(),
        **tile.options, **versions.LAUNCH_OPTIONS,
    }  # fmt: skip


def _slices(n: Sizes) -> int:
    return triton.cdiv(n.head_dim, slice_of(n.head_dim))


def _single_numbers(n: Sizes) -> tuple[int, int, int]:
    """Return what the float32 kernels take besides: chunks of the inputs, slices of the outputs, and the head dim."""
    return triton.cdiv(n.head_dim, CHUNK), _slices(n), n.head_dim


def _single_options(n: Sizes, tile: Tile) -> dict[str, Any]:
    """Return the compile-time arguments of the kernels for float32; plain TF32 is taken where the user allowed it."""
    tf32 = versions.float32_products_are_tf32()
    return {
        "B_R": tile.rows, "B_C": tile.columns, "CHUNK": CHUNK, "WIDTH": slice_of(n.head_dim),
        "PRECISION": "tf32" if tf32 else "tf32x3",
        **tile.options, **versions.LAUNCH_OPTIONS,
    }  # fmt: skip
