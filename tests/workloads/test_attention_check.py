"""Attention against float64."""

import pytest
import torch

from stepbench.kernels.api import bind
from stepbench.workloads import attention_check


def test_of_a_long_context_the_first_and_the_last_head_are_checked_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two sequences with two key heads, each shared by three heads: a wrong head that is looked at shows."""
    q, k, v = (torch.randn(2, heads, 24, 8, requires_grad=True) for heads in (6, 2, 2))
    upstream = torch.randn(q.shape)
    reference = bind("reference")

    def checked(wrong: int) -> float:
        def forward() -> torch.Tensor:
            o = reference(q, k, v, is_causal=True)
            factor = torch.ones(12).index_fill(0, torch.tensor([wrong]), 0.5).reshape(2, 6, 1, 1)
            return o * (factor if wrong >= 0 else 1.0)

        bound = {"exact": reference, "plain": bind("naive")}
        return attention_check.errors(forward, (q, k, v), upstream, causal=True, **bound)["checked_heads"]

    assert checked(-1) == 12
    monkeypatch.setattr(attention_check, "CHECKED_SCORES", 0)
    assert checked(-1) == checked(5) == 6
    for wrong in (0, 2, 9, 11):
        with pytest.raises(ArithmeticError, match=r"o must be within"):
            checked(wrong)


def test_the_oracle_takes_any_number_of_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    operands = [torch.randn(1, 2, 24, 8, dtype=torch.float64) for _ in range(4)]
    whole = attention_check.by_rows(bind("reference"), operands, causal=True)
    monkeypatch.setattr(attention_check, "CHECKED_ROWS", 5)
    for one, other in zip(whole, attention_check.by_rows(bind("reference"), operands, causal=True), strict=True):
        torch.testing.assert_close(one, other)
