"""The formulas are held against the module itself: its parameters, and the FLOPs that torch counts in it."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stepbench.models.costs import backward_flops, forward_flops, least_flops, parameters
from stepbench.models.decoder import Decoder, next_token_loss
from stepbench.models.sizes import ModelSize

# The seven sizes of the default config.yaml, and their parameters in millions at a vocabulary of 10 000.
TABLE = {
    "nano": (ModelSize(128, 512, 4, 4), 3.6),
    "micro": (ModelSize(256, 1024, 6, 8), 11.4),
    "small": (ModelSize(768, 3072, 12, 12), 128.6),
    "medium": (ModelSize(1024, 4096, 24, 16), 423.2),
    "large": (ModelSize(1280, 5120, 36, 20), 969.4),
    "xl": (ModelSize(1600, 6400, 48, 25), 1998.2),
    "2.7B": (ModelSize(2560, 10240, 32, 32), 3406.8),
}
SIZES = {name: size for name, (size, _) in TABLE.items()}
VOCABULARY = 10_000


def two_products(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, is_causal: bool) -> torch.Tensor:
    """Stand for attention where FLOPs are counted: scores and values, the full T×T."""
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


def step_flops(size: ModelSize, **shape: int) -> int:
    return forward_flops(size, **shape) + backward_flops(size, **shape)


def on_meta(size: ModelSize, vocabulary: int = VOCABULARY) -> Decoder:
    return Decoder(size, vocabulary=vocabulary, attention=two_products, device="meta")


@pytest.mark.parametrize("name", TABLE)
def test_parameters_are_those_of_the_table_and_of_the_module(name: str) -> None:
    size, millions = TABLE[name]
    count = parameters(size, VOCABULARY)
    assert round(count / 1e6, 1) == millions
    assert sum(parameter.numel() for parameter in on_meta(size).parameters()) == count


@pytest.mark.parametrize("name", SIZES)
def test_flops_are_what_torch_counts_forward_and_backward(name: str) -> None:
    # Deeper models repeat the block: torch's counter takes 3 s for the 48 of xl and says nothing new.
    size, batch, context = replace(SIZES[name], layers=min(SIZES[name].layers, 6)), 2, 96
    shape = {"vocabulary": VOCABULARY, "batch": batch, "context": context}
    model = on_meta(size)
    tokens = torch.zeros(batch, context, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as forward:
        logits = model(tokens)
    assert forward.get_total_flops() == forward_flops(size, **shape)
    with FlopCounterMode(display=False) as backward:
        next_token_loss(logits, tokens).backward()
    assert backward.get_total_flops() == backward_flops(size, **shape)


@pytest.mark.parametrize(("batch", "context", "vocabulary"), [(1, 1, 2), (3, 7, 11), (4, 128, 50), (1, 513, 333)])
def test_step_flops_are_what_torch_counts_at_any_shape(batch: int, context: int, vocabulary: int) -> None:
    size = ModelSize(d_model=24, d_ff=40, layers=3, heads=6)
    model = on_meta(size, vocabulary)
    tokens = torch.zeros(batch, context, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as step:
        next_token_loss(model(tokens), tokens).backward()
    assert step.get_total_flops() == step_flops(size, vocabulary=vocabulary, batch=batch, context=context)


def test_step_flops_are_megatrons_with_its_feed_forward_block() -> None:
    # SwiGLU's three matrices of 8/3·C hold as many entries as Megatron-LM's two of 4·C.
    c, layers, b, t, v = 768, 12, 4, 512, 10_000
    size = ModelSize(d_model=c, d_ff=8 * c // 3, layers=layers, heads=12)
    published = 72 * b * layers * t * c**2 * (1 + t / (6 * c) + v / (12 * layers * c))
    assert step_flops(size, vocabulary=v, batch=b, context=t) == pytest.approx(published, rel=1e-12)


def test_the_step_tends_to_six_flops_per_parameter_and_token() -> None:
    # PaLM's appendix B: 6N + 12·L·H·Q·T per token, N without the embedding, which is looked up and not multiplied.
    size, context = SIZES["2.7B"], 512
    multiplied = parameters(size, VOCABULARY) - VOCABULARY * size.d_model - (2 * size.layers + 1) * size.d_model
    per_token = 6 * multiplied + 12 * size.layers * size.heads * size.head_dim * context
    assert step_flops(size, vocabulary=VOCABULARY, batch=4, context=context) == 4 * context * per_token


def test_the_least_flops_are_those_of_every_product_that_is_needed() -> None:
    size, tokens = ModelSize(d_model=32, d_ff=64, layers=3, heads=4), 2 * 16
    entries = 4 * 32 * 32 + 3 * 32 * 64
    pairs = sum(query + 1 for query in range(16)) * 2  # a causal query sees the keys up to its own position
    blocks = 3 * (2 * tokens * entries + 2 * 2 * pairs * 32)
    head = 2 * tokens * 50 * 32
    shape = {"vocabulary": 50, "batch": 2, "context": 16}
    assert least_flops(size, **shape, backward=False, checkpointed=True) == blocks + head
    assert least_flops(size, **shape, backward=True, checkpointed=False) == 3 * (blocks + head)
    again = blocks - 3 * 2 * tokens * 32 * 64  # all of a block but its last product, and not the head
    assert least_flops(size, **shape, backward=True, checkpointed=True) == 3 * (blocks + head) + again


def test_the_least_flops_of_a_long_step_are_well_below_what_mfu_counts() -> None:
    size = ModelSize(d_model=4096, d_ff=11008, layers=34, heads=32)
    shape = {"vocabulary": 151_936, "batch": 1, "context": 32_768}
    counted = 4 * forward_flops(size, **shape)
    least = least_flops(size, **shape, backward=True, checkpointed=True)
    assert counted / 2250e12 == pytest.approx(1.94, abs=0.01)
    # With a kernel that skips masked tiles, the head computed once and all products of blocks twice it would be 1.39 s.
    assert 1.25 < least / 2250e12 < 1.39
