"""The cost of a decoder by formula: parameters, floating-point operations, bytes.

Every MFU in a report uses this convention:

- A multiply-add is 2 FLOPs, so a product of `[M, K]` and `[K, N]` is 2·M·K·N.
- Only matrix products are counted. Norms, softmax, rotary positions, SiLU, the loss, the embedding lookup and the
  optimizer are not: they are bound by memory, and MFU divides by the peak of the matrix units.
- Attention's two products, scores and values, count the full T×T although a causal mask leaves about half of it,
  as PaLM and Megatron-LM do. A kernel that skips masked tiles can therefore show a higher MFU than it achieves.
- The backward pass is twice the forward pass: each product Y = X·W has two in its gradient, dX = dY·Wᵀ and
  dW = Xᵀ·dY. What activation checkpointing recomputes is not counted (model FLOPs, not hardware FLOPs).

With d_ff = 4·d_model and an MLP of two matrices instead of SwiGLU's three, `step_flops` is Megatron-LM's
72·B·L·T·C²·(1 + T/6C + V/12LC).

Source: Chowdhery et al. 2022, PaLM (arXiv:2204.02311), appendix B, for model FLOPs and MFU. Narayanan et al. 2021,
Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM (arXiv:2104.04473), appendix, for the
terms; its 96 counts the forward pass once more for recomputation.
"""

from __future__ import annotations

from stepbench.models.sizes import ModelSize

FLOAT32_BYTES = 4


def parameters(size: ModelSize, vocabulary: int) -> int:
    """Count the parameters of a decoder, embedding and untied head included.

    A block has four attention matrices `[C, C]`, three of SwiGLU `[C, F]` and two norms `[C]`. Outside the blocks
    are the embedding `[V, C]`, the head `[V, C]` and the final norm `[C]`.
    """
    norms = 2 * size.d_model
    block = _block_matrix_entries(size) + norms
    return 2 * vocabulary * size.d_model + size.layers * block + size.d_model


def forward_flops(size: ModelSize, *, vocabulary: int, batch: int, context: int) -> int:
    """Count the FLOPs of one forward pass over `[batch, context]` tokens; see the module for the convention.

    Source: Narayanan et al. 2021 (arXiv:2104.04473), appendix, with SwiGLU's third matrix.
    """
    tokens = batch * context
    matrices = size.layers * _block_matrix_entries(size) + vocabulary * size.d_model
    # Scores and values: [T, D]·[D, T] and [T, T]·[T, D] for each head, and heads · head_dim is d_model.
    attention = size.layers * 2 * (2 * tokens * context * size.d_model)
    return 2 * tokens * matrices + attention


def backward_flops(size: ModelSize, *, vocabulary: int, batch: int, context: int) -> int:
    """Count the FLOPs of one backward pass: twice the forward pass, without recomputation."""
    return 2 * forward_flops(size, vocabulary=vocabulary, batch=batch, context=context)


def step_flops(size: ModelSize, *, vocabulary: int, batch: int, context: int) -> int:
    """Count the FLOPs of one training step: forward and backward pass, without the optimizer.

    AdamW's dozen elementwise operations per parameter are bound by memory; for a batch of a thousand tokens they are
    below one percent of the products' 6 FLOPs per parameter and token.
    """
    return 3 * forward_flops(size, vocabulary=vocabulary, batch=batch, context=context)


def parameter_bytes(size: ModelSize, vocabulary: int, *, dtype_bytes: int = FLOAT32_BYTES) -> int:
    """Return the bytes of all parameters; `dtype_bytes` is one element's width (float32 4, bfloat16 2)."""
    return parameters(size, vocabulary) * dtype_bytes


def gradient_bytes(size: ModelSize, vocabulary: int, *, dtype_bytes: int = FLOAT32_BYTES) -> int:
    """Return the bytes of all gradients once a backward pass has filled them; autograd keeps a parameter's dtype."""
    return parameters(size, vocabulary) * dtype_bytes


def adamw_state_bytes(size: ModelSize, vocabulary: int, *, dtype_bytes: int = FLOAT32_BYTES) -> int:
    """Return the bytes of AdamW's two moments, which torch keeps in the parameters' dtype.

    The step counter, one float32 per parameter tensor, is not counted: 1.2 KB for the 2.7B size.

    Source: Loshchilov and Hutter 2019 (arXiv:1711.05101), algorithm 2, the moments m and v.
    """
    return 2 * parameters(size, vocabulary) * dtype_bytes


def _block_matrix_entries(size: ModelSize) -> int:
    return 4 * size.d_model**2 + 3 * size.d_model * size.d_ff
