# mypy: disable-error-code="no-untyped-def"
"""The moves every attention kernel is made of: find a tile, load it, multiply it, store it.

A head dim that is no power of two is cut into two chunks that are: 80 = 64 + 16, 96 = 64 + 32. Padding 80 to 128 would
cost 1.6 times the arithmetic. A tile is therefore a tuple of one or two blocks, and the functions here hide which.

Two ways to load, chosen per launch: tensor descriptors (TMA, from sm_90 on) and pointers. Descriptors are worth it:
compiled for sm_90, the forward kernel with tiles of 128 × 64 at head dim 64 needs 187 registers with them and 255
without.

Trap: Triton's interpreter computes on the raw bits of bfloat16 without a word. ``UPCAST`` therefore turns every block
into float32 right after its load, and every operand of a product back into float32 right after it was rounded.
"""

import triton
import triton.language as tl

# Arguments that Triton shall not compile a variant for, whatever their values.
NUMBERS = ["pairs", "heads", "group", "q_len", "padded_len", "k_len", "offset", "section", "chunks", "slices"]


@triton.jit
def locate(program, tiles, pairs, section):
    """Map a program to its tile and its (batch, head) pair, so that work is balanced and the cache shared.

    Programs start in order. Within a section of `section` pairs, whose keys and values fit the cache together, all
    first tiles come first, then all second tiles: where tile 0 is the heaviest, the light ones fill the gaps at the
    end.

    Args:
        program: index of the program, in [0, tiles · pairs).
        tiles: number of tiles of one pair.
        pairs: number of (batch, head) pairs.
        section: number of pairs that share the cache.

    Returns:
        The tile's rank by weight, and the pair.
    """
    first = program // (tiles * section) * section
    width = tl.minimum(section, pairs - first)
    within = program - first * tiles
    return within // width, first + within % width


@triton.jit
def load_block(
    x, b, h, row, strides, length,
    COLUMN: tl.constexpr, WIDTH: tl.constexpr, HEAD_DIM: tl.constexpr, ROWS: tl.constexpr,
    GUARDED: tl.constexpr, DESCRIPTORS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Load x[b, h, row:row+ROWS, COLUMN:COLUMN+WIDTH]; what lies outside the tensor is zero.

    Arguments that their names do not explain:
        x: tensor descriptor, or pointer to the tensor's first element.
        strides: of batch, head and row, in elements; the last dim is contiguous.
        length: number of rows that exist.
        GUARDED: whether rows beyond `length` can occur. Descriptors need no guard.
    """
    if DESCRIPTORS:
        block = x.load([b, h, row, COLUMN]).reshape(ROWS, WIDTH)
    else:
        rows = tl.arange(0, ROWS)
        columns = COLUMN + tl.arange(0, WIDTH)
        start = x + tl.cast(b, tl.int64) * strides[0] + tl.cast(h, tl.int64) * strides[1]
        start += tl.cast(row, tl.int64) * strides[2]
        pointers = start + rows[:, None] * strides[2] + columns[None, :]
        if COLUMN + WIDTH > HEAD_DIM:
            block = tl.load(pointers, mask=(rows[:, None] < length - row) & (columns[None, :] < HEAD_DIM), other=0.0)
        elif GUARDED:
            block = tl.load(pointers, mask=rows[:, None] < length - row, other=0.0)
        else:
            block = tl.load(pointers)
    if UPCAST:
        block = block.to(tl.float32)
    return block


@triton.jit
def load_tile(
    x, x_tail, b, h, row, strides, length,
    HEAD_DIM: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr, ROWS: tl.constexpr,
    GUARDED: tl.constexpr, DESCRIPTORS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Load ROWS whole rows as a tuple of blocks: one, or two where `TAIL` is not 0."""
    main = load_block(
        x, b, h, row, strides, length, 0, MAIN, HEAD_DIM, ROWS, GUARDED, DESCRIPTORS, UPCAST)  # fmt: skip
    if TAIL == 0:
        return (main,)
    else:
        tail = load_block(
            x_tail, b, h, row, strides, length, MAIN, TAIL, HEAD_DIM, ROWS, GUARDED, DESCRIPTORS, UPCAST)  # fmt: skip
        return (main, tail)


@triton.jit
def store_block(
    x, block, b, h, row, strides, length,
    COLUMN: tl.constexpr, WIDTH: tl.constexpr, HEAD_DIM: tl.constexpr, ROWS: tl.constexpr, ATOMIC: tl.constexpr,
):  # fmt: skip
    """Write `block` to x[b, h, row:row+ROWS, COLUMN:COLUMN+WIDTH] where that exists, or add it there where ATOMIC."""
    rows = tl.arange(0, ROWS)
    columns = COLUMN + tl.arange(0, WIDTH)
    start = x + tl.cast(b, tl.int64) * strides[0] + tl.cast(h, tl.int64) * strides[1]
    start += tl.cast(row, tl.int64) * strides[2]
    pointers = start + rows[:, None] * strides[2] + columns[None, :]
    inside = rows[:, None] < length - row
    if COLUMN + WIDTH > HEAD_DIM:
        inside = inside & (columns[None, :] < HEAD_DIM)
    if ATOMIC:
        tl.atomic_add(pointers, block, mask=inside, sem="relaxed")
    else:
        tl.store(pointers, block.to(x.dtype.element_ty), mask=inside)


@triton.jit
def store_tile(
    x, accumulator, b, h, row, strides, length,
    HEAD_DIM: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr, ROWS: tl.constexpr, ATOMIC: tl.constexpr = False,
):  # fmt: skip
    """Write an accumulator's chunks, rounded to x's dtype, where these rows and columns exist."""
    store_block(x, accumulator[0], b, h, row, strides, length, 0, MAIN, HEAD_DIM, ROWS, ATOMIC)
    if TAIL > 0:
        store_block(x, accumulator[1], b, h, row, strides, length, MAIN, TAIL, HEAD_DIM, ROWS, ATOMIC)


@triton.jit
def zeros(ROWS: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr):
    """Return an accumulator: one float32 block for each chunk."""
    if TAIL == 0:
        return (tl.zeros([ROWS, MAIN], tl.float32),)
    else:
        return (tl.zeros([ROWS, MAIN], tl.float32), tl.zeros([ROWS, TAIL], tl.float32))


@triton.jit
def scaled(accumulator, factor):
    """Multiply every chunk by `factor`, a scalar or a column vector."""
    if len(accumulator) == 1:
        return (accumulator[0] * factor,)
    else:
        return (accumulator[0] * factor, accumulator[1] * factor)


@triton.jit
def round_to(x, DTYPE: tl.constexpr, UPCAST: tl.constexpr):
    """Round to the inputs' dtype, which is what the tensor cores take."""
    x = x.to(DTYPE)
    if UPCAST:
        x = x.to(tl.float32)
    return x


@triton.jit
def dot_rows(a, b):
    """Return a bᵀ of two tiles, summed over both chunks: [rows of a, rows of b], float32."""
    product = tl.dot(a[0], tl.trans(b[0]))
    if len(a) == 2:
        product = tl.dot(a[1], tl.trans(b[1]), product)
    return product


@triton.jit
def add_dot(accumulator, p, x):
    """Return accumulator + p x, chunk by chunk, of a block p and a tile x."""
    if len(x) == 1:
        return (tl.dot(p, x[0], accumulator[0]),)
    else:
        return (tl.dot(p, x[0], accumulator[0]), tl.dot(p, x[1], accumulator[1]))
