"""The cost of a decoder by formula: parameters and floating-point operations.

Every MFU in a report uses this convention:

- A multiply-add is 2 FLOPs, so a product of `[M, K]` and `[K, N]` is 2·M·K·N.
- Only matrix products are counted. Norms, softmax, rotary positions, SiLU, the loss, the embedding lookup and the
  optimizer are not: they are bound by memory, and MFU divides by the peak of the matrix units.
- Attention's two products, scores and values, count the full T×T although a causal mask leaves about half of it,
  as PaLM and Megatron-LM do. A kernel that skips masked tiles can therefore show a higher MFU than it achieves.
- The backward pass is twice the forward pass: each product Y = X·W has two in its gradient, dX = dY·Wᵀ and
  dW = Xᵀ·dY. What activation checkpointing recomputes is not counted (model FLOPs, not hardware FLOPs).

With d_ff = 4·d_model and an MLP of two matrices instead of SwiGLU's three, the FLOPs of a step are Megatron-LM's
72·B·L·T·C²·(1 + T/6C + V/12LC).

Source: Chowdhery et al. 2022, PaLM (arXiv:2204.02311), appendix B, for model FLOPs and MFU. Narayanan et al. 2021,
Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM (arXiv:2104.04473), appendix, for the
terms; its 96 counts the forward pass once more for recomputation.
"""

from __future__ import annotations

from stepbench.models.architecture import GPT2, Architecture
from stepbench.models.sizes import ModelSize


def parameters(size: ModelSize, vocabulary: int) -> int:
    """Count the parameters of a decoder, embedding and head included; a tied head is the embedding.

    A block of LLaMA has the attention matrices of queries and output `[C, H·D]`, and of keys and values `[C, K·D]`,
    three of SwiGLU `[C, F]` and two norms `[C]`, perhaps two more `[D]`. One of GPT-2 has two feed-forward matrices,
    and everything has biases. Outside the blocks are the embedding `[V, C]`, the head `[V, C]`, the final norm `[C]`,
    and learned positions `[P, C]`.
    """
    shape = Architecture.of(size)
    width = shape.d_model
    matrices = vocabulary * width * (1 if shape.tied else 2) + shape.positions * width
    block = _block_matrix_entries(shape)
    if shape.architecture == GPT2:
        inner = shape.heads * shape.head_dim
        biases = 3 * inner + width + shape.d_ff + width
        return matrices + shape.layers * (block + biases + 4 * width) + 2 * width
    norms = 2 * width + (2 * shape.head_dim if shape.qk_norm else 0)
    return matrices + shape.layers * (block + norms) + width


def forward_flops(size: ModelSize, *, vocabulary: int, batch: int, context: int) -> int:
    """Count the FLOPs of one forward pass over `[batch, context]` tokens; see the module for the convention.

    Source: Narayanan et al. 2021 (arXiv:2104.04473), appendix, with SwiGLU's third matrix.
    """
    shape = Architecture.of(size)
    tokens = batch * context
    matrices = shape.layers * _block_matrix_entries(shape) + vocabulary * shape.d_model
    # Scores and values: [T, D]·[D, T] and [T, T]·[T, D] for each head.
    attention = shape.layers * 2 * (2 * tokens * context * shape.heads * shape.head_dim)
    return 2 * tokens * matrices + attention


def backward_flops(size: ModelSize, *, vocabulary: int, batch: int, context: int) -> int:
    """Count the FLOPs of one backward pass: twice the forward pass, without recomputation."""
    return 2 * forward_flops(size, vocabulary=vocabulary, batch=batch, context=context)


def least_flops(
    size: ModelSize, *, vocabulary: int, batch: int, context: int, backward: bool, checkpointed: bool
) -> int:
    """Count the FLOPs that no implementation of a step goes below, for a least time; MFU does not use them.

    Other than by the convention of the module, attention's products count the T·(T + 1)/2 pairs that a causal mask
    leaves, because kernels skip the others. Checkpointed blocks are computed once more, each without its last product,
    whose result nothing needs then; the head is not.

    Args:
        size: of the decoder.
        vocabulary: V.
        batch: sequences.
        context: T.
        backward: whether there is a backward pass.
        checkpointed: whether the blocks are.
    """
    shape = Architecture.of(size)
    tokens = batch * context
    pairs = batch * context * (context + 1) // 2
    attention = shape.layers * 2 * (2 * pairs * shape.heads * shape.head_dim)
    blocks = 2 * tokens * shape.layers * _block_matrix_entries(shape) + attention
    forward = blocks + 2 * tokens * vocabulary * shape.d_model
    if not backward:
        return forward
    last = 2 * tokens * shape.layers * shape.d_ff * shape.d_model
    return 3 * forward + (blocks - last if checkpointed else 0)


def _block_matrix_entries(shape: Architecture) -> int:
    attention = 2 * shape.d_model * shape.head_dim * (shape.heads + shape.key_heads)
    return attention + (2 if shape.architecture == GPT2 else 3) * shape.d_model * shape.d_ff
