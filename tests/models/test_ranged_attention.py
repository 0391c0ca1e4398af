"""Attention with named parts computes what the naive kernel computes, and the names are seen."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from stepbench.kernels.api import attention
from stepbench.models.ranged_attention import MARK, PARTS, ranged_attention


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_causal", [True, False])
def test_it_is_naive_attention_to_the_bit(dtype: torch.dtype, is_causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(2, 3, 9, 16, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]
    both = []
    for attend in (ranged_attention, lambda *qkv, is_causal: attention(*qkv, is_causal=is_causal, impl="naive")):
        qkv = [leaf.clone().requires_grad_() for leaf in leaves]
        output = attend(*qkv, is_causal=is_causal)
        output.sum().backward()
        both.append([output, *(each.grad for each in qkv)])
    for ours, theirs in zip(*both, strict=True):
        assert torch.equal(ours, theirs)


def test_each_part_is_a_range() -> None:
    q = torch.randn(1, 2, 4, 8)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        ranged_attention(q, q, q, is_causal=True)
    events = profiler.events() or []
    assert [event.name.removeprefix(MARK) for event in events if event.name.startswith(MARK)] == list(PARTS)
