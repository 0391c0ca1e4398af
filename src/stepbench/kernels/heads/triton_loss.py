# mypy: disable-error-code="no-untyped-def"
"""Cross-entropy and its gradient by the logits, in place: one program for each token.

A program reads its row of logits twice: once for maximum and sum, and once more to write the gradient over it. A row of
50 257 in 16 bits is 98 KiB, so that the second reading comes from the L2 cache.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from stepbench import versions
from stepbench.kernels.heads.contract import IGNORED

COLUMNS, WARPS = 4096, 8  # of a tile: 16 numbers for each thread
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit(do_not_specialize=["vocabulary", "scale"])
def cross_entropy(
    logits, targets, losses, stride, vocabulary, scale,
    IGNORED_TARGET: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write one token's loss, and its gradient over its logits; both are 0 for an ignored target.

    Logits are [n, V] in float32, bfloat16 or float16, `stride` apart; targets [n] int64; losses [n] float32. The
    gradient is multiplied by `scale`.
    """
    row = tl.program_id(0)
    target = tl.load(targets + row)
    logits += row.to(tl.int64) * stride
    columns = tl.arange(0, COLUMNS)
    counts = target != IGNORED_TARGET
    # Here, with the barriers of the sums between this and the first store: a warp that is ahead would write over it.
    wanted = tl.load(logits + target, mask=counts, other=0.0).to(tl.float32) * LOG2_E
    m = -float("inf")
    total = 0.0
    for start in tl.range(0, vocabulary, COLUMNS):
        inside = start + columns < vocabulary
        # In base 2, and float32 right after the load: the interpreter would compute on the raw bits of bfloat16.
        x = tl.load(logits + start + columns, mask=inside, other=-float("inf")).to(tl.float32) * LOG2_E
        m_new = tl.maximum(m, tl.max(x, 0))
        total = total * tl.math.exp2(m - m_new) + tl.sum(tl.math.exp2(x - m_new), 0)
        m = m_new
    lse = m + tl.math.log2(total)
    tl.store(losses + row, tl.where(counts, (lse - wanted) * LN_2, 0.0))
    factor = tl.where(counts, scale, 0.0)
    for start in tl.range(0, vocabulary, COLUMNS):
        inside = start + columns < vocabulary
        x = tl.load(logits + start + columns, mask=inside, other=-float("inf")).to(tl.float32) * LOG2_E
        g = (tl.math.exp2(x - lse) - tl.where(start + columns == target, 1.0, 0.0)) * factor
        tl.store(logits + start + columns, g.to(logits.dtype.element_ty), mask=inside)


def loss_and_gradient(logits: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return each token's loss `[n]` and the gradient `[n, V]`, which takes the place of the logits `[n, V]`."""
    return cross_entropy_(logits, targets, scale), logits


# An operator of its own: neither FakeTensorMode nor torch.compile can look into a kernel.
@torch.library.custom_op("stepbench::cross_entropy_", mutates_args=("logits",))
def cross_entropy_(logits: Tensor, targets: Tensor, scale: float) -> Tensor:
    """Return the losses, and write the gradient over the logits."""
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):
        launch: Any = cross_entropy[(len(logits),)]
        launch(
            logits, targets, losses, logits.stride(0), logits.shape[1], scale,
            IGNORED_TARGET=IGNORED, COLUMNS=COLUMNS, num_warps=WARPS, **versions.LAUNCH_OPTIONS,
        )  # fmt: skip
    return losses


@cross_entropy_.register_fake
def _(logits: Tensor, targets: Tensor, scale: float) -> Tensor:
    return torch.empty(len(logits), dtype=torch.float32, device=logits.device)
