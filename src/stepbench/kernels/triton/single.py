# mypy: disable-error-code="no-untyped-def"
"""The kernels for float32: the same algorithms, with the head dim taken in pieces.

Tensor cores do not take float32. `tf32x3` cuts every operand in two and makes three products of TF32, which keeps
about float32's precision, but the cut operands live in registers: the kernels of `forward` and `backward` would spill
from head dim 64 on, whatever their tiles. Here nothing is held that grows with the head dim. Scores are summed chunk
by chunk in a loop that loads both operands, and a program makes one slice of the columns of its output; the programs
that make the other slices compute the same scores once more. Float32 is for checking, 16 bits are for speed.

Arguments are those of `forward` and `backward`, and
    chunks     number of chunks of CHUNK columns of the inputs, the last of which may be part empty
    slices     number of slices of WIDTH columns of the outputs, likewise
    head_dim   D
"""

import triton
import triton.language as tl

from stepbench.kernels.triton.primitives import NUMBERS, locate

LOWEST = tl.constexpr(-3.0e38)  # see `forward`
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def load_columns(x, row, column, stride, length, head_dim, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Load x[row:row+ROWS, column:column+WIDTH] of one head; what lies outside is zero."""
    rows = row + tl.arange(0, ROWS)
    columns = column + tl.arange(0, WIDTH)
    inside = (rows[:, None] < length) & (columns[None, :] < head_dim)
    return tl.load(x + rows[:, None].to(tl.int64) * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def store_columns(
    x, block, row, column, stride, length, head_dim,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, ATOMIC: tl.constexpr = False,
):  # fmt: skip
    """Write `block` to x[row:row+ROWS, column:column+WIDTH] of one head where that exists, or add it there."""
    rows = row + tl.arange(0, ROWS)
    columns = column + tl.arange(0, WIDTH)
    inside = (rows[:, None] < length) & (columns[None, :] < head_dim)
    pointers = x + rows[:, None].to(tl.int64) * stride + columns[None, :]
    if ATOMIC:
        tl.atomic_add(pointers, block, mask=inside, sem="relaxed")
    else:
        tl.store(pointers, block, mask=inside)


@triton.jit
def head_of(x, b, h, strides):
    """Return the pointer to the first row of one head."""
    return x + tl.cast(b, tl.int64) * strides[0] + tl.cast(h, tl.int64) * strides[1]


@triton.jit
def dot_rows(
    a, a_row, a_stride, a_length, b, b_row, b_stride, b_length, chunks, head_dim,
    ROWS_A: tl.constexpr, ROWS_B: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return ROWS_A rows of a times ROWS_B rows of b, transposed: [ROWS_A, ROWS_B]."""
    product = tl.zeros([ROWS_A, ROWS_B], tl.float32)
    for c in tl.range(0, chunks):
        a_c = load_columns(a, a_row, c * CHUNK, a_stride, a_length, head_dim, ROWS_A, CHUNK)
        b_c = load_columns(b, b_row, c * CHUNK, b_stride, b_length, head_dim, ROWS_B, CHUNK)
        product = tl.dot(a_c, tl.trans(b_c), product, input_precision=PRECISION)
    return product


@triton.jit(do_not_specialize=NUMBERS)
def forward(
    q, k, v, o, lse, q_strides, k_strides, v_strides, o_strides,
    pairs, heads, group, q_len, k_len, offset, section, chunks, slices, head_dim, qk_scale,
    B_R: tl.constexpr, B_C: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write one slice of o, and with the first one lse, for B_R query rows of one head."""
    tiles = tl.cdiv(q_len, B_R)
    rank, pair = locate(tl.program_id(0) // slices, tiles, pairs, section)
    column = tl.program_id(0) % slices * WIDTH
    row = (tiles - 1 - rank) * B_R
    b = pair // heads
    h = pair % heads
    q = head_of(q, b, h, q_strides)
    k = head_of(k, b, h // group, k_strides)
    v = head_of(v, b, h // group, v_strides)
    rows = row + tl.arange(0, B_R)
    visible = tl.minimum(rows + offset + 1, k_len)

    o_i = tl.zeros([B_R, WIDTH], tl.float32)
    l_i = tl.zeros([B_R], tl.float32)
    m_i = tl.full([B_R], LOWEST, tl.float32)
    for start in tl.range(0, tl.minimum(row + B_R + offset, k_len), B_C):
        s = dot_rows(
            q, row, q_strides[2], q_len, k, start, k_strides[2], k_len, chunks, head_dim,
            B_R, B_C, CHUNK, PRECISION)  # fmt: skip
        s = tl.where((start + tl.arange(0, B_C))[None, :] < visible[:, None], s, -float("inf"))
        m_new = tl.maximum(m_i, tl.max(s, 1) * qk_scale)
        p = tl.math.exp2(s * qk_scale - m_new[:, None])
        alpha = tl.math.exp2(m_i - m_new)
        l_i = l_i * alpha + tl.sum(p, 1)
        v_j = load_columns(v, start, column, v_strides[2], k_len, head_dim, B_C, WIDTH)
        o_i = tl.dot(p, v_j, o_i * alpha[:, None], input_precision=PRECISION)
        m_i = m_new

    blind = l_i == 0.0
    l_i = tl.where(blind, 1.0, l_i)
    if column == 0:
        lse_i = tl.where(blind, -float("inf"), (m_i + tl.math.log2(l_i)) * LN_2)
        tl.store(lse + pair.to(tl.int64) * q_len + rows, lse_i, mask=rows < q_len)
    o = head_of(o, b, h, o_strides)
    store_columns(o, o_i * (1.0 / l_i)[:, None], row, column, o_strides[2], q_len, head_dim, B_R, WIDTH)


@triton.jit(do_not_specialize=NUMBERS)
def backward_keys(
    q, k, v, do, dq, dk, dv, lse_2, delta,
    q_strides, k_strides, v_strides, do_strides, dq_strides, dk_strides, dv_strides,
    pairs, heads, group, q_len, padded_len, k_len, offset, section, chunks, slices, head_dim, scale, qk_scale,
    B_R: tl.constexpr, B_C: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr,
    FUSED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write one slice of dk and dv for B_C keys of one key head; add to the same slice of dq where FUSED."""
    rank, pair = locate(tl.program_id(0) // slices, tl.cdiv(k_len, B_C), pairs, section)
    column = tl.program_id(0) % slices * WIDTH
    key = rank * B_C
    b = pair // heads
    h_kv = pair % heads
    k = head_of(k, b, h_kv, k_strides)
    v = head_of(v, b, h_kv, v_strides)
    keys = key + tl.arange(0, B_C)
    dk_j = tl.zeros([B_C, WIDTH], tl.float32)
    dv_j = tl.zeros([B_C, WIDTH], tl.float32)
    for h in tl.range(h_kv * group, (h_kv + 1) * group):
        q_h = head_of(q, b, h, q_strides)
        do_h = head_of(do, b, h, do_strides)
        statistics = tl.cast(b * heads * group + h, tl.int64) * padded_len
        for row in tl.range(tl.maximum(key - offset, 0) // B_R * B_R, q_len, B_R):
            rows = row + tl.arange(0, B_R)
            s_t = dot_rows(
                k, key, k_strides[2], k_len, q_h, row, q_strides[2], q_len, chunks, head_dim,
                B_C, B_R, CHUNK, PRECISION)  # fmt: skip
            dp_t = dot_rows(
                v, key, v_strides[2], k_len, do_h, row, do_strides[2], q_len, chunks, head_dim,
                B_C, B_R, CHUNK, PRECISION)  # fmt: skip
            p_t = tl.math.exp2(s_t * qk_scale - tl.load(lse_2 + statistics + rows)[None, :])
            seen = (keys[:, None] <= rows[None, :] + offset) & (keys[:, None] < k_len)
            p_t = tl.where(seen, p_t, 0.0)
            do_i = load_columns(do_h, row, column, do_strides[2], q_len, head_dim, B_R, WIDTH)
            dv_j = tl.dot(p_t, do_i, dv_j, input_precision=PRECISION)
            ds_t = p_t * (dp_t - tl.load(delta + statistics + rows)[None, :])
            q_i = load_columns(q_h, row, column, q_strides[2], q_len, head_dim, B_R, WIDTH)
            dk_j = tl.dot(ds_t, q_i, dk_j, input_precision=PRECISION)
            if FUSED:
                k_j = load_columns(k, key, column, k_strides[2], k_len, head_dim, B_C, WIDTH)
                share = tl.dot(tl.trans(ds_t), k_j, input_precision=PRECISION) * scale
                dq_h = head_of(dq, b, h, dq_strides)
                store_columns(dq_h, share, row, column, dq_strides[2], q_len, head_dim, B_R, WIDTH, ATOMIC=True)
    dk = head_of(dk, b, h_kv, dk_strides)
    dv = head_of(dv, b, h_kv, dv_strides)
    store_columns(dk, dk_j * scale, key, column, dk_strides[2], k_len, head_dim, B_C, WIDTH)
    store_columns(dv, dv_j, key, column, dv_strides[2], k_len, head_dim, B_C, WIDTH)


@triton.jit(do_not_specialize=NUMBERS)
def backward_queries(
    q, k, v, do, dq, lse_2, delta, q_strides, k_strides, v_strides, do_strides, dq_strides,
    pairs, heads, group, q_len, padded_len, k_len, offset, section, chunks, slices, head_dim, scale, qk_scale,
    B_R: tl.constexpr, B_C: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write one slice of dq for B_R query rows of one head."""
    tiles = tl.cdiv(q_len, B_R)
    rank, pair = locate(tl.program_id(0) // slices, tiles, pairs, section)
    column = tl.program_id(0) % slices * WIDTH
    row = (tiles - 1 - rank) * B_R
    b = pair // heads
    h = pair % heads
    q = head_of(q, b, h, q_strides)
    do = head_of(do, b, h, do_strides)
    k = head_of(k, b, h // group, k_strides)
    v = head_of(v, b, h // group, v_strides)
    rows = row + tl.arange(0, B_R)
    visible = tl.minimum(rows + offset + 1, k_len)
    lse_i = tl.load(lse_2 + pair.to(tl.int64) * padded_len + rows)
    delta_i = tl.load(delta + pair.to(tl.int64) * padded_len + rows)

    dq_i = tl.zeros([B_R, WIDTH], tl.float32)
    for start in tl.range(0, tl.minimum(row + B_R + offset, k_len), B_C):
        s = dot_rows(
            q, row, q_strides[2], q_len, k, start, k_strides[2], k_len, chunks, head_dim,
            B_R, B_C, CHUNK, PRECISION)  # fmt: skip
        dp = dot_rows(
            do, row, do_strides[2], q_len, v, start, v_strides[2], k_len, chunks, head_dim,
            B_R, B_C, CHUNK, PRECISION)  # fmt: skip
        p = tl.math.exp2(s * qk_scale - lse_i[:, None])
        p = tl.where((start + tl.arange(0, B_C))[None, :] < visible[:, None], p, 0.0)
        k_j = load_columns(k, start, column, k_strides[2], k_len, head_dim, B_C, WIDTH)
        dq_i = tl.dot(p * (dp - delta_i[:, None]), k_j, dq_i, input_precision=PRECISION)
    dq = head_of(dq, b, h, dq_strides)
    store_columns(dq, dq_i * scale, row, column, dq_strides[2], q_len, head_dim, B_R, WIDTH)
