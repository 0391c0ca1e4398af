# mypy: disable-error-code="no-untyped-def"
"""Experimental: the forward kernel in Gluon for sm_90, with a producer warp and two groups of consumers.

It has never run: it compiles for sm_90 without a spill (tests/kernels/test_gluon.py), `limits` does not know its shape,
and no interpreter has its operations, so that `make gpu-check` asks for its numerics first and times it last. No
implementation uses it.

One warp copies tiles of k and v into a ring of stages, each with a barrier that tells when it is full and one that
tells when both groups have read it. Each group of four warps owns ROWS query rows. A group asks for the scores of the
next tile before it does the softmax of this one, and so keeps the tensor cores busy during its exponentials.

Trap: ptxas moves the wait for the product with v above the exponentials, even where their results pass through it (seen
with Triton 3.7.1), and then nothing overlaps. So a group arrives, between the two, on a barrier that nobody waits for
(`anchor`), on a condition that only the finished softmax can tell. A test reads the order off the compiled code.

Source: Shah et al., FlashAttention-3 (2024), sections 3.1 and 3.2.
"""

import math

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait

GROUPS, ROWS, COLUMNS, HEAD_DIM, STAGES = 2, 64, 64, 128, 4
CONSUMER_REGISTERS, PRODUCER_REGISTERS = 240, 24
LOWEST = gl.constexpr(-3.0e38)  # below every score that float32 can hold


@gluon.jit
def _masked(s, row, start, offset, LAYOUT: gl.constexpr, B_R: gl.constexpr, B_C: gl.constexpr):
    """Take the scores away that a row does not see: row r sees the keys up to r + offset."""
    rows = row + gl.arange(0, B_R, gl.SliceLayout(1, LAYOUT))
    columns = start + gl.arange(0, B_C, gl.SliceLayout(0, LAYOUT))
    return gl.where(gl.expand_dims(columns, 0) <= gl.expand_dims(rows, 1) + offset, s, -float("inf"))


@gluon.jit
def _softmax(s, m_i, l_i, qk_scale):
    """Return the probabilities, and the new maximum and sum of each row, and by what the old sums shrink."""
    m_new = gl.maximum(m_i, gl.max(s, 1) * qk_scale)
    p = gl.exp2(s * qk_scale - gl.expand_dims(m_new, 1))
    alpha = gl.exp2(m_i - m_new)
    return p, m_new, l_i * alpha + gl.sum(p, 1), alpha


@gluon.jit
def _round(
    i, q, ks, vs, k_full, k_empty, v_full, v_empty, anchor, o_i, m_i, l_i, p_16, zero, row, offset, qk_scale,
    S: gl.constexpr, O: gl.constexpr, P: gl.constexpr, B_R: gl.constexpr, B_C: gl.constexpr,  # noqa: E741
    N_STAGES: gl.constexpr, DTYPE: gl.constexpr, MASKED: gl.constexpr,
):  # fmt: skip
    """Multiply the probabilities of tile i − 1 with its values while the scores of tile i become probabilities."""
    slot, before = i % N_STAGES, (i - 1) % N_STAGES
    mbarrier.wait(k_full.index(slot), (i // N_STAGES) & 1)
    scores = warpgroup_mma(q, ks.index(slot).permute((1, 0)), zero, use_acc=False, is_async=True)
    mbarrier.wait(v_full.index(before), ((i - 1) // N_STAGES) & 1)
    values = warpgroup_mma(p_16, vs.index(before), o_i, is_async=True)
    s = warpgroup_mma_wait(1, deps=[scores])
    mbarrier.arrive(k_empty.index(slot), count=1)
    if MASKED:
        s = _masked(s, row, i * B_C, offset, S, B_R, B_C)
    p, m_i, l_i, alpha = _softmax(s, m_i, l_i, qk_scale)
    p_16 = gl.convert_layout(p.to(DTYPE), P)
    mbarrier.arrive(anchor, count=1, pred=gl.max(l_i, 0) > 0)  # always true, but not to be known earlier
    o_i, p_16 = warpgroup_mma_wait(0, deps=[values, p_16])
    mbarrier.arrive(v_empty.index(before), count=1)
    return o_i * gl.expand_dims(gl.convert_layout(alpha, gl.SliceLayout(1, O)), 1), m_i, l_i, p_16


@gluon.jit
def _consume(
    q, ks, vs, q_full, k_full, k_empty, v_full, v_empty, anchor, o, lse, first_row, row, n, full, offset, qk_scale,
    B_R: gl.constexpr, B_C: gl.constexpr, D: gl.constexpr, N_STAGES: gl.constexpr, DTYPE: gl.constexpr,
):  # fmt: skip
    """Write o and lse of B_R rows.

    Arguments that their names do not explain:
        first_row: of the head, in all rows of all heads.
        row: within the head.
        n: tiles of keys.
        full: the first tile of which some row does not see some key.
        offset: row r sees the keys up to r + offset.
    """
    S: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, B_C, 16])
    O: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, D, 16])  # noqa: E741
    P: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=O, k_width=2)
    o_i = gl.zeros([B_R, D], gl.float32, O)
    m_i = gl.full([B_R], LOWEST, gl.float32, gl.SliceLayout(1, S))
    l_i = gl.zeros([B_R], gl.float32, gl.SliceLayout(1, S))
    zero = gl.zeros([B_R, B_C], gl.float32, S)

    mbarrier.wait(q_full, 0)
    mbarrier.wait(k_full.index(0), 0)
    s = warpgroup_mma(q, ks.index(0).permute((1, 0)), zero, use_acc=False, is_async=True)
    s = warpgroup_mma_wait(0, deps=[s])
    mbarrier.arrive(k_empty.index(0), count=1)
    if full <= 0:
        s = _masked(s, row, 0, offset, S, B_R, B_C)
    p, m_i, l_i, _ = _softmax(s, m_i, l_i, qk_scale)
    p_16 = gl.convert_layout(p.to(DTYPE), P)
    plain = gl.maximum(gl.minimum(full, n), 1)
    for i in range(1, plain):
        o_i, m_i, l_i, p_16 = _round(
            i, q, ks, vs, k_full, k_empty, v_full, v_empty, anchor, o_i, m_i, l_i, p_16, zero, row, offset, qk_scale,
            S, O, P, B_R, B_C, N_STAGES, DTYPE, False)  # fmt: skip
    for i in range(plain, n):
        o_i, m_i, l_i, p_16 = _round(
            i, q, ks, vs, k_full, k_empty, v_full, v_empty, anchor, o_i, m_i, l_i, p_16, zero, row, offset, qk_scale,
            S, O, P, B_R, B_C, N_STAGES, DTYPE, True)  # fmt: skip
    last = (n - 1) % N_STAGES
    mbarrier.wait(v_full.index(last), ((n - 1) // N_STAGES) & 1)
    values = warpgroup_mma(p_16, vs.index(last), o_i, is_async=True)
    o_i = warpgroup_mma_wait(0, deps=[values])

    o_i = o_i * gl.expand_dims(gl.convert_layout(1.0 / l_i, gl.SliceLayout(1, O)), 1)
    rows = (first_row + row + gl.arange(0, B_R, gl.SliceLayout(1, O))).to(gl.int64)
    columns = gl.arange(0, D, gl.SliceLayout(0, O))
    gl.store(o + gl.expand_dims(rows, 1) * D + gl.expand_dims(columns, 0), o_i.to(DTYPE))
    # ln 2: the sums are to base 2.
    gl.store(lse + first_row + row + gl.arange(0, B_R, gl.SliceLayout(1, S)), (m_i + gl.log2(l_i)) * 0.6931471805599453)


@gluon.jit
def _first(
    q, ks, vs, q_full, k_full, k_empty, v_full, v_empty, anchor, o, lse, first_row, row, n, full, offset, qk_scale,
    B_R: gl.constexpr, B_C: gl.constexpr, D: gl.constexpr, N_STAGES: gl.constexpr, DTYPE: gl.constexpr,
):  # fmt: skip
    _consume(
        q.index(0), ks, vs, q_full.index(0), k_full, k_empty, v_full, v_empty, anchor.index(0), o, lse, first_row, row,
        n, full // B_C, offset, qk_scale, B_R, B_C, D, N_STAGES, DTYPE)  # fmt: skip


@gluon.jit
def _second(
    q, ks, vs, q_full, k_full, k_empty, v_full, v_empty, anchor, o, lse, first_row, row, n, full, offset, qk_scale,
    B_R: gl.constexpr, B_C: gl.constexpr, D: gl.constexpr, N_STAGES: gl.constexpr, DTYPE: gl.constexpr,
):  # fmt: skip
    _consume(
        q.index(1), ks, vs, q_full.index(1), k_full, k_empty, v_full, v_empty, anchor.index(1), o, lse, first_row,
        row + B_R, n, (full + B_R) // B_C, offset, qk_scale, B_R, B_C, D, N_STAGES, DTYPE)  # fmt: skip


@gluon.jit
def _produce(
    q_tiles, k_tiles, v_tiles, q, ks, vs, q_full, k_full, k_empty, v_full, v_empty, q_row, k_row, n,
    B_R: gl.constexpr, B_C: gl.constexpr, D: gl.constexpr, N_STAGES: gl.constexpr, N_GROUPS: gl.constexpr,
):  # fmt: skip
    """Copy the tiles of q once, and those of k and v as soon as both groups have read what was in their place."""
    for group in gl.static_range(N_GROUPS):
        mbarrier.expect(q_full.index(group), B_R * D * 2)
        tma.async_copy_global_to_shared(q_tiles, [q_row + group * B_R, 0], q_full.index(group), q.index(group))
    for i in range(n):
        slot, phase = i % N_STAGES, (i // N_STAGES) & 1
        mbarrier.wait(k_empty.index(slot), phase ^ 1)
        mbarrier.expect(k_full.index(slot), B_C * D * 2)
        tma.async_copy_global_to_shared(k_tiles, [k_row + i * B_C, 0], k_full.index(slot), ks.index(slot))
        mbarrier.wait(v_empty.index(slot), phase ^ 1)
        mbarrier.expect(v_full.index(slot), B_C * D * 2)
        tma.async_copy_global_to_shared(v_tiles, [k_row + i * B_C, 0], v_full.index(slot), vs.index(slot))


@gluon.jit
def forward_kernel(
    q_tiles, k_tiles, v_tiles, o, lse, heads, group, q_len, k_len, offset, qk_scale,
    N_GROUPS: gl.constexpr, B_R: gl.constexpr, B_C: gl.constexpr, D: gl.constexpr, N_STAGES: gl.constexpr,
    DTYPE: gl.constexpr, CONSUMERS: gl.constexpr, PRODUCER: gl.constexpr,
):  # fmt: skip
    """Write o and lse of two groups of rows of one head.

    Arguments that their names do not explain:
        q_tiles: descriptor of all rows of all heads, [B · H · Tq, D]. k_tiles and v_tiles: [B · Hkv · Tk, D].
        group: query heads that share a key head.
        offset: row r sees the keys up to r + offset.
        qk_scale: scale · log₂e.
    """
    pair = gl.program_id(1)
    row = (gl.num_programs(0) - 1 - gl.program_id(0)) * N_GROUPS * B_R  # the last rows see most keys
    k_row = (pair // heads * (heads // group) + pair % heads // group) * k_len
    first_row = pair * q_len
    full = gl.minimum(row + offset + 1, k_len)
    n = gl.cdiv(gl.minimum(row + N_GROUPS * B_R + offset, k_len), B_C)
    q = gl.allocate_shared_memory(DTYPE, [N_GROUPS, B_R, D], q_tiles.layout)
    ks = gl.allocate_shared_memory(DTYPE, [N_STAGES, B_C, D], k_tiles.layout)
    vs = gl.allocate_shared_memory(DTYPE, [N_STAGES, B_C, D], v_tiles.layout)
    q_full = gl.allocate_shared_memory(gl.int64, [N_GROUPS, 1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [N_STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [N_STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [N_STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [N_STAGES, 1], mbarrier.MBarrierLayout())
    anchor = gl.allocate_shared_memory(gl.int64, [N_GROUPS, 1], mbarrier.MBarrierLayout())
    for each in gl.static_range(N_GROUPS):
        mbarrier.init(q_full.index(each), count=1)
        mbarrier.init(anchor.index(each), count=1)
    for stage in gl.static_range(N_STAGES):
        mbarrier.init(k_full.index(stage), count=1)
        mbarrier.init(k_empty.index(stage), count=N_GROUPS)
        mbarrier.init(v_full.index(stage), count=1)
        mbarrier.init(v_empty.index(stage), count=N_GROUPS)
    gl.warp_specialize(
        [
            (_first, (q, ks, vs, q_full, k_full, k_empty, v_full, v_empty, anchor, o, lse, first_row, row, n, full,
                      offset, qk_scale, B_R, B_C, D, N_STAGES, DTYPE)),
            (_second, (q, ks, vs, q_full, k_full, k_empty, v_full, v_empty, anchor, o, lse, first_row, row, n, full,
                       offset, qk_scale, B_R, B_C, D, N_STAGES, DTYPE)),
            (_produce, (q_tiles, k_tiles, v_tiles, q, ks, vs, q_full, k_full, k_empty, v_full, v_empty,
                        first_row + row, k_row, n, B_R, B_C, D, N_STAGES, N_GROUPS)),
        ],
        [4, 1],
        [CONSUMERS, PRODUCER],
    )  # fmt: skip


def constants(dtype: torch.dtype) -> dict[str, object]:
    """Return the compile-time arguments of `forward_kernel`."""
    return {
        "N_GROUPS": GROUPS, "B_R": ROWS, "B_C": COLUMNS, "D": HEAD_DIM, "N_STAGES": STAGES,
        "DTYPE": {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}[dtype],
        "CONSUMERS": CONSUMER_REGISTERS, "PRODUCER": PRODUCER_REGISTERS,
    }  # fmt: skip


def layout_of(rows: int, dtype: torch.dtype) -> gl.NVMMASharedLayout:
    """Return how a tile of that many rows lies in shared memory."""
    return gl.NVMMASharedLayout.get_default_for([rows, HEAD_DIM], constants(dtype)["DTYPE"])


def forward(q: Tensor, k: Tensor, v: Tensor, scale: float, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Run the kernel.

    Args:
        q: [B, H, Tq, 128], bfloat16 or float16, contiguous, on a GPU of compute capability 9.0; Tq a multiple of 128.
        k: [B, Hkv, Tk, 128], likewise, Tk a multiple of 64, and with `is_causal` Tk ≥ Tq.
        v: like k.
        scale: factor of the scores.
        is_causal: whether the mask aligned at the last key applies.

    Returns:
        o, like q, and lse, [B, H, Tq] float32.

    Raises:
        ValueError: an argument is none of these.
    """
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    (batch, heads, q_len, head_dim), (heads_kv, k_len) = q.shape, k.shape[1:3]
    if head_dim != HEAD_DIM or q_len % (GROUPS * ROWS) or k_len % COLUMNS or (is_causal and k_len < q_len):
        raise ValueError(
            f"`q` and `k` must have a head dim of {HEAD_DIM}, lengths that are multiples of {GROUPS * ROWS} and "
            f"{COLUMNS}, and with a causal mask no fewer keys than queries, got {list(q.shape)} and {list(k.shape)}"
        )
    if not all(x.is_contiguous() and x.dtype in (torch.bfloat16, torch.float16) for x in (q, k, v)):
        raise ValueError("`q`, `k` and `v` must be contiguous and of 16 bits")
    o, lse = torch.empty_like(q), torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)

    def tiles(x: Tensor, rows: int) -> object:
        flat = x.reshape(-1, HEAD_DIM)
        return TensorDescriptor.from_tensor(flat, [rows, HEAD_DIM], layout_of(rows, x.dtype))

    offset = k_len - q_len if is_causal else k_len
    forward_kernel[(triton.cdiv(q_len, GROUPS * ROWS), batch * heads)](
        tiles(q, ROWS), tiles(k, COLUMNS), tiles(v, COLUMNS), o, lse, heads, heads // heads_kv, q_len, k_len, offset,
        scale / math.log(2), **constants(q.dtype), num_warps=4)  # fmt: skip
    return o, lse
