# mypy: disable-error-code="no-untyped-def"
"""The backward kernels: FlashAttention-2, algorithm 2, as two passes without atomics, or as one pass with them.

With P = exp(S · scale − lse) recomputed tile by tile, dP = dO Vᵀ and D = rowsum(dO ∘ O):

    dV = Pᵀ dO        dS = P ∘ (dP − D)        dQ = scale · dS K        dK = scale · dSᵀ Q

`backward_keys` owns a tile of keys and walks over the queries, `backward_queries` owns a tile of queries and walks
over the keys. Both recompute S and dP, which makes seven products where five are needed, but each sum is made by one
program in one order: the same inputs give the same bits. With ``FUSED``, `backward_keys` makes the five products and
adds its share of dQ to a float32 buffer: element by element with atomics, or with ``REDUCED`` a tile at a time, from
shared memory, by the copy engine (cp.reduce.async.bulk.tensor). Either way the order of the additions, and so the last
bits of dQ, differ from run to run.

`row_statistics` prepares what all of them need for each row. It turns lse into base 2 and stores +∞ for rows that see
no key and for rows that only pad the last tile, so that P is exactly 0 there and no loop needs a mask for rows.

Source: Dao, FlashAttention-2 (2023), algorithm 2 and section 3.1.2.
"""

import triton
import triton.language as tl

from stepbench.kernels.triton.primitives import (
    NUMBERS,
    add_dot,
    dot_rows,
    load_tile,
    locate,
    round_to,
    scaled,
    store_tile,
    zeros,
)

LOG2_E = tl.constexpr(1.4426950408889634)
NEVER = tl.constexpr(1 << 30)  # the first row that sees a key which does not exist


@triton.jit(do_not_specialize=NUMBERS)
def row_statistics(
    o, do, lse, dlse, lse_2, delta, o_strides, do_strides, heads, q_len, padded_len,
    HEAD_DIM: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr, B_R: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Write lse · log₂e and D = rowsum(dO ∘ O) − dlse for B_R rows of one head.

    Arguments that their names do not explain:
        o: [B, H, Tq, D], pointer. So is do.
        lse: [B, H, Tq], float32, contiguous.
        dlse: gradient of lse, like lse, or None. d lse / dS = P, so it is subtracted from D.
        lse_2: [B, H, padded_len], float32, written; +∞ where P is 0.
        delta: [B, H, padded_len], float32, written; 0 where P is 0.
    """
    tiles = padded_len // B_R
    row = tl.program_id(0) % tiles * B_R
    pair = tl.program_id(0) // tiles
    b = pair // heads
    h = pair % heads
    rows = row + tl.arange(0, B_R)
    source = pair.to(tl.int64) * q_len + rows
    o_i = load_tile(
        o, o, b, h, row, o_strides, q_len, HEAD_DIM, MAIN, TAIL, B_R, True, False, UPCAST)  # fmt: skip
    do_i = load_tile(
        do, do, b, h, row, do_strides, q_len, HEAD_DIM, MAIN, TAIL, B_R, True, False, UPCAST)  # fmt: skip
    d = tl.sum(o_i[0].to(tl.float32) * do_i[0].to(tl.float32), 1)
    if TAIL > 0:
        d += tl.sum(o_i[1].to(tl.float32) * do_i[1].to(tl.float32), 1)
    if dlse is not None:
        d -= tl.load(dlse + source, mask=rows < q_len, other=0.0)
    l_i = tl.load(lse + source, mask=rows < q_len, other=-float("inf"))
    blind = l_i == -float("inf")
    target = pair.to(tl.int64) * padded_len + rows
    tl.store(lse_2 + target, tl.where(blind, float("inf"), l_i * LOG2_E))
    tl.store(delta + target, tl.where(blind, 0.0, d))


@triton.jit
def key_tiles(
    dk, dv, k_j, v_j, q, q_tail, do, do_tail, dq, lse_2, delta, b, h, q_strides, do_strides, dq_strides,
    q_len, padded_len, group, first_row, first, count, skip_from, skip_to, scale, qk_scale,
    HEAD_DIM: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr, B_R: tl.constexpr, MASKED: tl.constexpr,
    GROUPED: tl.constexpr, FUSED: tl.constexpr, REDUCED: tl.constexpr, DESCRIPTORS: tl.constexpr, DTYPE: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """Add what `count` query tiles of each head give to dk and dv (algorithm 2, lines 9 to 17).

    Scores are kept transposed, keys by queries, so that Pᵀ and dSᵀ go into their products from registers.

    Arguments that their names do not explain:
        dk: running gradient of the keys, not yet times scale: [B_C, D], float32.
        dv: running gradient of the values: [B_C, D], float32.
        dq: [B, H, Tq, D], float32, pointer, or descriptor where REDUCED; added to where FUSED.
        lse_2: the first head's row of `row_statistics`. So is delta.
        h: the first of `group` heads.
        first_row: the first row that sees each key: [B_C].
        first: index of the first tile. Where MASKED, the tiles [skip_from, skip_to) are left out.

    Returns:
        The new dk, dv.
    """
    for t in tl.range(0, count * group if GROUPED else count):
        i = first + t
        head = h
        statistics = 0
        if GROUPED:  # one loop over heads and tiles: nested loops cost registers that the accumulators need
            g = t // count
            i -= g * count
            head += g
            statistics = g * padded_len
        if MASKED:
            i = tl.where(i < skip_from, i, i + skip_to - skip_from)
        row = i * B_R
        rows = row + tl.arange(0, B_R)
        q_i = load_tile(
            q, q_tail, b, head, row, q_strides, q_len,
            HEAD_DIM, MAIN, TAIL, B_R, MASKED, DESCRIPTORS, UPCAST)  # fmt: skip
        do_i = load_tile(
            do, do_tail, b, head, row, do_strides, q_len,
            HEAD_DIM, MAIN, TAIL, B_R, MASKED, DESCRIPTORS, UPCAST)  # fmt: skip
        lse_i = tl.load(lse_2 + statistics + rows)
        dp_t = dot_rows(v_j, do_i)
        s_t = dot_rows(k_j, q_i)
        p_t = tl.math.exp2(s_t * qk_scale - lse_i[None, :])
        if MASKED:
            p_t = tl.where(rows[None, :] >= first_row[:, None], p_t, 0.0)
        dv = add_dot(dv, round_to(p_t, DTYPE, UPCAST), do_i)
        delta_i = tl.load(delta + statistics + rows)
        ds_t = round_to(p_t * (dp_t - delta_i[None, :]), DTYPE, UPCAST)
        dk = add_dot(dk, ds_t, q_i)
        if FUSED:
            share = scaled(add_dot(zeros(B_R, MAIN, TAIL), tl.trans(ds_t), k_j), scale)
            if REDUCED:
                tl.static_assert(TAIL == 0, "a descriptor adds whole rows")
                dq.atomic_add([b, head, row, 0], share[0].reshape(1, 1, B_R, MAIN))
            else:
                store_tile(dq, share, b, head, row, dq_strides, q_len, HEAD_DIM, MAIN, TAIL, B_R, ATOMIC=True)
    return dk, dv


@triton.jit(do_not_specialize=NUMBERS)
def backward_keys(
    q, q_tail, k, k_tail, v, v_tail, do, do_tail, dq, dk, dv, lse_2, delta,
    q_strides, k_strides, v_strides, do_strides, dq_strides, dk_strides, dv_strides,
    pairs, heads, group, q_len, padded_len, k_len, offset, section, scale, qk_scale,
    HEAD_DIM: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr, B_R: tl.constexpr,
    B_C: tl.constexpr, GROUPED: tl.constexpr, FUSED: tl.constexpr, REDUCED: tl.constexpr, DESCRIPTORS: tl.constexpr,
    DTYPE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Write dk and dv for B_C keys of one key head, summed over the query heads that share it; add to dq where FUSED.

    Arguments that their names do not explain:
        q: [B, H, Tq, D], descriptor or pointer. So is do. `_tail` is the second chunk's, or None.
        k: [B, Hkv, Tk, D], descriptor or pointer. So is v.
        dq: [B, H, Tq, D], float32, pointer, or descriptor where REDUCED; added to; None unless FUSED.
        dk: [B, Hkv, Tk, D], pointer, written. So is dv.
        lse_2: [B, H, padded_len], of `row_statistics`. So is delta.
        pairs: B · Hkv.
        heads: Hkv.
        group: H / Hkv.
        offset: row r sees the keys up to r + offset.
        section: see `locate`.
        qk_scale: scale · log₂e.
    """
    rank, pair = locate(tl.program_id(0), tl.cdiv(k_len, B_C), pairs, section)
    column = rank * B_C  # the first keys are seen by most rows
    b = pair // heads
    h_kv = pair % heads
    columns = column + tl.arange(0, B_C)
    first_row = tl.where(columns < k_len, columns - offset, NEVER)

    tiles = tl.cdiv(q_len, B_R)
    begin = tl.minimum(tl.maximum(column - offset, 0) // B_R, tiles)
    full = tl.minimum(tl.cdiv(tl.maximum(column + B_C - 1 - offset, 0), B_R), tiles)
    full = tl.where(column + B_C > k_len, tiles, full)  # keys that do not exist need the mask in every tile
    full_end = tl.maximum(q_len // B_R, full)  # so does a last tile of rows that is not whole

    k_j = load_tile(
        k, k_tail, b, h_kv, column, k_strides, k_len,
        HEAD_DIM, MAIN, TAIL, B_C, True, DESCRIPTORS, UPCAST)  # fmt: skip
    v_j = load_tile(
        v, v_tail, b, h_kv, column, v_strides, k_len,
        HEAD_DIM, MAIN, TAIL, B_C, True, DESCRIPTORS, UPCAST)  # fmt: skip
    dk_j = zeros(B_C, MAIN, TAIL)
    dv_j = zeros(B_C, MAIN, TAIL)
    h = h_kv * group
    lse_2 += (b * heads * group + h).to(tl.int64) * padded_len
    delta += (b * heads * group + h).to(tl.int64) * padded_len
    dk_j, dv_j = key_tiles(
        dk_j, dv_j, k_j, v_j, q, q_tail, do, do_tail, dq, lse_2, delta, b, h, q_strides, do_strides, dq_strides,
        q_len, padded_len, group, first_row, begin, tiles - (full_end - full) - begin, full, full_end, scale, qk_scale,
        HEAD_DIM, MAIN, TAIL, B_R, True, GROUPED, FUSED, REDUCED, DESCRIPTORS, DTYPE, UPCAST)  # fmt: skip
    dk_j, dv_j = key_tiles(
        dk_j, dv_j, k_j, v_j, q, q_tail, do, do_tail, dq, lse_2, delta, b, h, q_strides, do_strides, dq_strides,
        q_len, padded_len, group, first_row, full, full_end - full, full, full_end, scale, qk_scale,
        HEAD_DIM, MAIN, TAIL, B_R, False, GROUPED, FUSED, REDUCED, DESCRIPTORS, DTYPE, UPCAST)  # fmt: skip
    store_tile(dk, scaled(dk_j, scale), b, h_kv, column, dk_strides, k_len, HEAD_DIM, MAIN, TAIL, B_C)
    store_tile(dv, dv_j, b, h_kv, column, dv_strides, k_len, HEAD_DIM, MAIN, TAIL, B_C)


@triton.jit
def query_tiles(
    dq, q_i, do_i, lse_i, delta_i, k, k_tail, v, v_tail, b, h, k_strides, v_strides, k_len, visible, first, last,
    qk_scale, HEAD_DIM: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr, B_C: tl.constexpr, MASKED: tl.constexpr,
    DESCRIPTORS: tl.constexpr, DTYPE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Add what the keys [first, last) give to dq, not yet times scale (algorithm 2, line 15, turned inside out)."""
    for start in tl.range(first, last, B_C):
        k_j = load_tile(
            k, k_tail, b, h, start, k_strides, k_len,
            HEAD_DIM, MAIN, TAIL, B_C, MASKED, DESCRIPTORS, UPCAST)  # fmt: skip
        v_j = load_tile(
            v, v_tail, b, h, start, v_strides, k_len,
            HEAD_DIM, MAIN, TAIL, B_C, MASKED, DESCRIPTORS, UPCAST)  # fmt: skip
        s = dot_rows(q_i, k_j)
        dp = dot_rows(do_i, v_j)
        p = tl.math.exp2(s * qk_scale - lse_i[:, None])
        if MASKED:
            p = tl.where((start + tl.arange(0, B_C))[None, :] < visible[:, None], p, 0.0)
        dq = add_dot(dq, round_to(p * (dp - delta_i[:, None]), DTYPE, UPCAST), k_j)
    return dq


@triton.jit(do_not_specialize=NUMBERS)
def backward_queries(
    q, q_tail, k, k_tail, v, v_tail, do, do_tail, dq, lse_2, delta,
    q_strides, k_strides, v_strides, do_strides, dq_strides,
    pairs, heads, group, q_len, padded_len, k_len, offset, section, scale, qk_scale,
    HEAD_DIM: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr, B_R: tl.constexpr,
    B_C: tl.constexpr, DESCRIPTORS: tl.constexpr, DTYPE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Write dq for B_R query rows of one head.

    Arguments that their names do not explain:
        dq: [B, H, Tq, D], pointer, written.
        pairs: B · H.
        heads: H.
        others: as in `backward_keys`.
    """
    tiles = tl.cdiv(q_len, B_R)
    rank, pair = locate(tl.program_id(0), tiles, pairs, section)
    row = (tiles - 1 - rank) * B_R  # the last rows see most keys
    b = pair // heads
    h = pair % heads
    h_kv = h // group
    rows = row + tl.arange(0, B_R)
    visible = tl.minimum(rows + offset + 1, k_len)
    full = tl.maximum(tl.minimum(row + offset + 1, k_len), 0) // B_C * B_C
    end = tl.minimum(row + B_R + offset, k_len)

    lse_i = tl.load(lse_2 + pair.to(tl.int64) * padded_len + rows)
    delta_i = tl.load(delta + pair.to(tl.int64) * padded_len + rows)
    q_i = load_tile(
        q, q_tail, b, h, row, q_strides, q_len,
        HEAD_DIM, MAIN, TAIL, B_R, True, DESCRIPTORS, UPCAST)  # fmt: skip
    do_i = load_tile(
        do, do_tail, b, h, row, do_strides, q_len,
        HEAD_DIM, MAIN, TAIL, B_R, True, DESCRIPTORS, UPCAST)  # fmt: skip
    dq_i = zeros(B_R, MAIN, TAIL)
    dq_i = query_tiles(
        dq_i, q_i, do_i, lse_i, delta_i, k, k_tail, v, v_tail, b, h_kv, k_strides, v_strides, k_len, visible, 0, full,
        qk_scale, HEAD_DIM, MAIN, TAIL, B_C, False, DESCRIPTORS, DTYPE, UPCAST)  # fmt: skip
    dq_i = query_tiles(
        dq_i, q_i, do_i, lse_i, delta_i, k, k_tail, v, v_tail, b, h_kv, k_strides, v_strides, k_len, visible, full, end,
        qk_scale, HEAD_DIM, MAIN, TAIL, B_C, True, DESCRIPTORS, DTYPE, UPCAST)  # fmt: skip
    store_tile(dq, scaled(dq_i, scale), b, h, row, dq_strides, q_len, HEAD_DIM, MAIN, TAIL, B_R)
