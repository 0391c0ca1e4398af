# mypy: disable-error-code="no-untyped-def"
"""The fused forward kernel: FlashAttention-2, algorithm 1, one program for one tile of query rows.

Base 2 throughout: exp(s · scale − m) is computed as exp2(s · scale · log₂e − m), one fused multiply-add and one
instruction of the special function unit per score, because the hardware's exponential is to base 2.

A program's keys fall into two ranges, and each gets a loop of its own (`forward`):

    keys     0 ........ full ........ end ........ k_len
    loop     every row      some rows    no row
             sees them      see them     sees them: never touched
    mask     none           yes

so that only tiles on the causal diagonal, and the last tile of an odd length, pay for masking. Causality needs no
compiled variant of its own: row r sees the keys below min(r + offset + 1, k_len), and without a causal mask the offset
is k_len.

With ``ONE_LOOP`` a single loop takes all keys and asks before each tile whether it is masked. That saves the second
loop's prologue, in which the first copies are waited for, and costs a branch an iteration: a gain for short contexts at
head dim 128, by the prediction of `limits`.

Source: Dao, FlashAttention-2 (2023), algorithm 1 and section 3.1; the order of the programs follows FlashAttention-3's
longest-processing-time-first schedule.
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

# Below every score that float32 can hold. A running maximum that starts here, and not at −inf, keeps −inf − (−inf) out
# of the loop: a row that sees no key ends with l = 0 and no NaN, without a test per tile.
LOWEST = tl.constexpr(-3.0e38)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def forward_tiles(
    o, l_i, m_i, q, k, k_tail, v, v_tail, b, h, k_strides, v_strides, k_len, visible, full, first, last, qk_scale,
    HEAD_DIM: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr, B_C: tl.constexpr, MASKED: tl.constexpr,
    ONE_LOOP: tl.constexpr, DESCRIPTORS: tl.constexpr, DTYPE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Take the keys [first, last) into account, a tile of B_C at a time (algorithm 1, lines 7 to 10).

    Arguments that their names do not explain:
        o: running output, not yet divided by l_i: [B_R, D], float32.
        l_i: running sum of exponentials: [B_R].
        m_i: running maximum, times scale · log₂e: [B_R].
        visible: number of keys that each row sees: [B_R].
        full: the first key that some row does not see, a multiple of B_C; read where ONE_LOOP.
        MASKED: whether some row may not see a key of some tile.

    Returns:
        The new o, l_i, m_i.
    """
    for start in tl.range(first, last, B_C):
        k_j = load_tile(
            k, k_tail, b, h, start, k_strides, k_len,
            HEAD_DIM, MAIN, TAIL, B_C, MASKED, DESCRIPTORS, UPCAST)  # fmt: skip
        s = dot_rows(q, k_j)
        if ONE_LOOP:
            if start >= full:
                s = tl.where((start + tl.arange(0, B_C))[None, :] < visible[:, None], s, -float("inf"))
        elif MASKED:
            s = tl.where((start + tl.arange(0, B_C))[None, :] < visible[:, None], s, -float("inf"))
        m_new = tl.maximum(m_i, tl.max(s, 1) * qk_scale)
        p = tl.math.exp2(s * qk_scale - m_new[:, None])
        alpha = tl.math.exp2(m_i - m_new)
        l_i = l_i * alpha + tl.sum(p, 1)
        o = scaled(o, alpha[:, None])
        v_j = load_tile(
            v, v_tail, b, h, start, v_strides, k_len,
            HEAD_DIM, MAIN, TAIL, B_C, MASKED, DESCRIPTORS, UPCAST)  # fmt: skip
        o = add_dot(o, round_to(p, DTYPE, UPCAST), v_j)
        m_i = m_new
    return o, l_i, m_i


@triton.jit(do_not_specialize=NUMBERS)
def forward(
    q, q_tail, k, k_tail, v, v_tail, o, lse, q_strides, k_strides, v_strides, o_strides,
    pairs, heads, group, q_len, k_len, offset, section, qk_scale,
    HEAD_DIM: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr, B_R: tl.constexpr,
    B_C: tl.constexpr, ONE_LOOP: tl.constexpr, DESCRIPTORS: tl.constexpr, DTYPE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Write o and lse for B_R query rows of one head.

    Arguments that their names do not explain:
        q: [B, H, Tq, D], descriptor or pointer. `q_tail` is its second chunk's, or None.
        k: [B, Hkv, Tk, D]. So is v.
        o: [B, H, Tq, D], pointer, written.
        lse: [B, H, Tq], float32, contiguous, written: the natural logarithm of the sum of exponentials.
        q_strides: of batch, head and row, in elements. So are the other strides.
        pairs: B · H.
        heads: H.
        group: H / Hkv.
        offset: row r sees the keys up to r + offset.
        section: see `locate`.
        qk_scale: scale · log₂e.
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

    q_i = load_tile(
        q, q_tail, b, h, row, q_strides, q_len,
        HEAD_DIM, MAIN, TAIL, B_R, True, DESCRIPTORS, UPCAST)  # fmt: skip
    o_i = zeros(B_R, MAIN, TAIL)
    l_i = tl.zeros([B_R], tl.float32)
    m_i = tl.full([B_R], LOWEST, tl.float32)
    if not ONE_LOOP:
        o_i, l_i, m_i = forward_tiles(
            o_i, l_i, m_i, q_i, k, k_tail, v, v_tail, b, h_kv, k_strides, v_strides, k_len, visible, full, 0, full,
            qk_scale, HEAD_DIM, MAIN, TAIL, B_C, False, False, DESCRIPTORS, DTYPE, UPCAST)  # fmt: skip
    o_i, l_i, m_i = forward_tiles(
        o_i, l_i, m_i, q_i, k, k_tail, v, v_tail, b, h_kv, k_strides, v_strides, k_len, visible, full,
        0 if ONE_LOOP else full, end,
        qk_scale, HEAD_DIM, MAIN, TAIL, B_C, True, ONE_LOOP, DESCRIPTORS, DTYPE, UPCAST)  # fmt: skip

    blind = l_i == 0.0  # a row that sees no key: o = 0, lse = −inf
    l_i = tl.where(blind, 1.0, l_i)
    lse_i = tl.where(blind, -float("inf"), (m_i + tl.math.log2(l_i)) * LN_2)
    tl.store(lse + pair.to(tl.int64) * q_len + rows, lse_i, mask=rows < q_len)
    store_tile(o, scaled(o_i, (1.0 / l_i)[:, None]), b, h, row, o_strides, q_len, HEAD_DIM, MAIN, TAIL, B_R)
