"""Head and loss of a few tokens at a time, with the gradient made in the forward pass.

The gradient of the mean cross-entropy by the logits is (softmax − one-hot) / N: all that it needs from behind the loss
is a factor. So a chunk of tokens goes all the way to its share of both gradients, and its logits are forgotten:

    logits = x wᵀ          g = softmax(logits) − one-hot          dx = g w          dw += gᵀ x

What is kept for the backward pass is dx `[N, C]` and dw `[V, C]` instead of logits `[N, V]`. The price is that dw is
read and written once for each chunk. A chunk of n tokens has 6·n·V·C FLOPs and moves 8·V·C bytes of dw (12 in 16 bits,
whose product is written and read by itself), so n must be large against 8/6 of the machine's FLOPs per byte: 512 on a
CPU with 10 to 30 of them, and up to 4096 where there are many tokens.

Source: Hsu et al. 2024, Liger Kernel (arXiv:2410.10989), section 3.2, FusedLinearCrossEntropy.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stepbench.kernels.contract import UP_TO_DOUBLE, by_dtype_alone
from stepbench.kernels.heads.contract import IGNORED, Head, Range, compute_dtype, wrong_dtype

CHUNKS = 8
LEAST_TOKENS, MOST_TOKENS = 512, 4096
# In float16 a probability below 6e-5 loses digits, and 1/V is less.
FLOAT16_SCALE = 1024.0

# Takes logits [n, V], which it may overwrite, targets [n], and the factor of the gradient; returns the loss of each
# token, 0 for an ignored one, [n] in float32, and the gradient of each by its logits, [n, V] in their dtype. Rows of
# ignored tokens may hold anything finite.
Rows = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


_foretold: list[int] = []  # sizes that `foretell` has set


def tokens_per_chunk(tokens: int) -> int:
    """Return how many tokens are taken at a time."""
    return min(max(-(-tokens // CHUNKS), LEAST_TOKENS), MOST_TOKENS)


def chunks(tokens: int) -> list[slice]:
    """Return which tokens are taken at a time, in order."""
    if _foretold:
        return [slice(0, _foretold[-1])] * 2
    size = tokens_per_chunk(tokens)
    return [slice(start, start + size) for start in range(0, tokens, size)]


@contextmanager
def foretell(size: int) -> Iterator[None]:
    """Take the same chunk twice, of this size, whatever the number of tokens: the result is wrong.

    All chunks but the first allocate alike. So what a step allocates with many chunks can be told from one with two.
    """
    _foretold.append(size)
    try:
        yield
    finally:
        _foretold.pop()


def by_chunks(x: Tensor, weight: Tensor, targets: Tensor, rows: Rows) -> Tensor:
    """Return the mean cross-entropy, chunk by chunk; `rows` makes loss and gradient of each. See `contract.Head`."""
    dtype = compute_dtype(x)
    with by_dtype_alone(x.device):
        total: Tensor = _ByChunks.apply(x.flatten(0, -2), weight, targets.flatten(), dtype, rows)
    return total


class _ByChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, dtype: torch.dtype, rows: Rows) -> Tensor:
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        single = torch.promote_types(dtype, torch.float32)
        x, weight = x_NC.detach().to(dtype), weight_VC.detach().to(dtype)
        counted = (targets_N != IGNORED).to(single)
        scale = FLOAT16_SCALE if dtype == torch.float16 else 1.0
        total, dx, dw = counted.new_zeros(()), torch.empty_like(x_NC) if needs_x else None, None
        for part in chunks(len(x)):
            losses, g = rows(x[part] @ weight.T, targets_N[part], scale)
            total = total + losses.sum()
            count = counted[part, None].to(dtype)
            if dx is not None:
                dx[part] = (g @ weight) * count
            if needs_weight:
                dw = _added(dw, g, x[part] * count, single)
            del losses, g  # before the next logits
        number = counted.sum()
        ctx.save_for_backward(dx, None if dw is None else dw.to(weight_VC.dtype), number * scale)
        return total / number

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw, number = ctx.saved_tensors
        factor = gradient / number
        # In place, or the largest tensor would be there twice. A second backward pass is refused by autograd: what it
        # has saved was changed.
        return *(None if d is None else d.mul_(factor.to(d.dtype)) for d in (dx, dw)), None, None, None


def _added(dw: Tensor | None, g: Tensor, x: Tensor, single: torch.dtype) -> Tensor:
    """Return dw + gᵀ x in single precision, in place; gᵀ x alone where there is no dw."""
    if dw is None:
        return (g.T @ x).to(single)
    return dw.addmm_(g.T, x) if g.dtype == single else dw.add_(g.T @ x)


def _rows(logits: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    dtype, counted = logits.dtype, targets != IGNORED
    wanted = torch.where(counted, targets, 0)[:, None]
    log_p = logits.log_softmax(-1, dtype=torch.promote_types(dtype, torch.float32))
    del logits
    losses = torch.where(counted, -log_p.gather(1, wanted)[:, 0], 0.0)
    g = log_p.exp_()
    g.scatter_add_(1, wanted, g.new_full((), -1.0).expand_as(wanted))
    return losses, (g.mul_(scale) if scale != 1 else g).to(dtype)


def loss(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy without all logits at once. See `contract.Head`."""
    return by_chunks(x, weight, targets, _rows)


# One chunk, chunks of the least size, a fixed number of chunks, and chunks of the largest size.
RANGES = (
    Range(LEAST_TOKENS, contexts=(16, 128)),
    Range(CHUNKS * LEAST_TOKENS, contexts=(256, 1024), within=partial(foretell, LEAST_TOKENS)),
    Range(CHUNKS * MOST_TOKENS, batches=(16, 24), contexts=(256, 1024)),
    Range(None, batches=(16, 24), contexts=(256, 1024), within=partial(foretell, MOST_TOKENS)),
)
HEAD = Head(loss, lambda _, dtype: wrong_dtype("chunked", dtype, UP_TO_DOUBLE), RANGES)
