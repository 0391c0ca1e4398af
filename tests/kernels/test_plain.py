"""What needs no kernel of ours: the plain implementations, torch's own where they run here, and `tiled`."""

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.testing.interpreter import ARRANGEMENTS
from tests.testing.oracles import Problem, assert_as_exact_as_plain, differentiate
from torch.autograd.graph import saved_tensors_hooks

from stepbench.kernels import sdpa, tiled
from stepbench.kernels.api import (
    IMPLEMENTATIONS,
    NoSecondDerivative,
    UnsupportedAttention,
    attention,
    bind,
    unsupported_reason,
)

PLAIN = ["naive", "reference", "tiled"]


def supports(impl: str, **more: Any) -> bool:
    case: dict[str, Any] = {"device": "cpu", "dtype": torch.float32, "head_dim": 16, **more}
    return unsupported_reason(impl, **case) is None


# All that run here, so that a new one is checked as soon as the registry names it; `compiled` has a slow test.
ON_CPU = [name for name in IMPLEMENTATIONS if name != "compiled" and supports(name)]
WITH_LSE = [name for name in ON_CPU if supports(name, return_lse=True)]
LENGTHS = [(1, 1), (1, 40), (40, 1), (33, 65), (65, 33), (64, 64)]


def check(problem: Problem, impl: str, *, with_lse: bool = True, arrange: str = "contiguous") -> None:
    inputs = tuple(ARRANGEMENTS[arrange](x.detach()).requires_grad_() for x in problem.inputs())
    answer: Any = attention(*inputs, is_causal=problem.is_causal, scale=problem.scale, impl=impl, return_lse=with_lse)
    o, lse = answer if with_lse else (answer, None)
    assert o.dtype == inputs[0].dtype
    assert_as_exact_as_plain(differentiate(o, lse, inputs, problem), problem)


@pytest.mark.parametrize("is_causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("impl", ON_CPU)
def test_every_dtype(impl: str, dtype: str, is_causal: bool) -> None:
    if not supports(impl, dtype=getattr(torch, dtype)):
        pytest.skip(f"{impl} does not take {dtype}")
    check(Problem(70, 70, 32, dtype, is_causal), impl, with_lse=impl in WITH_LSE)


@pytest.mark.parametrize("is_causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize(("q_len", "k_len"), LENGTHS)
@pytest.mark.parametrize("impl", ON_CPU)
def test_every_length(impl: str, q_len: int, k_len: int, is_causal: bool) -> None:
    """The causal mask is aligned at the end, for torch's own implementations too, and rows without keys give 0."""
    check(Problem(q_len, k_len, 16, is_causal=is_causal), impl, with_lse=impl in WITH_LSE)


@pytest.mark.parametrize("impl", ON_CPU)
def test_grouped_queries(impl: str) -> None:
    check(Problem(40, 50, 24, heads=6, key_heads=2, batch=2), impl, with_lse=impl in WITH_LSE)


@pytest.mark.parametrize("arrange", [name for name in ARRANGEMENTS if name != "expanded"])
@pytest.mark.parametrize("impl", PLAIN)
def test_inputs_of_any_layout(impl: str, arrange: str) -> None:
    check(Problem(40, 40, 16, batch=2), impl, arrange=arrange)


@pytest.mark.slow
def test_compiled() -> None:
    check(Problem(40, 50, 16), "compiled", with_lse=False)
    check(Problem(40, 50, 16, is_causal=False), "compiled", with_lse=True)


@pytest.mark.parametrize("is_causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize(("q_len", "k_len"), [(5, 5), (4, 7), (7, 4)])
@pytest.mark.parametrize("heads", [2, 4])
def test_gradients_of_tiled_are_those_of_its_function(heads: int, q_len: int, k_len: int, is_causal: bool) -> None:
    """Finite differences in float64, through o and through the logsumexp, with tiles that do not divide the lengths."""
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(1, h, t, 8, dtype=torch.float64, requires_grad=True)
        for h, t in ((heads, q_len), (2, k_len), (2, k_len))
    )

    def function(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        o, lse = tiled.attention(*inputs, is_causal=is_causal, scale=0.3, return_lse=True, b_r=3, b_c=2)
        return o, lse.masked_fill(lse.isinf(), 0.0)

    assert torch.autograd.gradcheck(function, (q, k, v))


@settings(max_examples=60)
@given(
    q_len=st.integers(1, 40),
    k_len=st.integers(1, 40),
    is_causal=st.booleans(),
    group=st.integers(1, 3),
    b_r=st.integers(1, 17),
    b_c=st.integers(1, 17),
    dtype=st.sampled_from(["float64", "float32", "bfloat16", "float16"]),
)
def test_tiled_with_any_tiles(
    q_len: int, k_len: int, is_causal: bool, group: int, b_r: int, b_c: int, dtype: str
) -> None:
    problem = Problem(q_len, k_len, 8, dtype, is_causal, heads=2 * group)
    inputs = problem.inputs()
    o, lse = tiled.attention(*inputs, is_causal=is_causal, scale=problem.scale, return_lse=True, b_r=b_r, b_c=b_c)
    assert_as_exact_as_plain(differentiate(o, lse, inputs, problem), problem)


def test_tiled_keeps_nothing_of_the_size_of_the_scores() -> None:
    saved: list[torch.Tensor] = []
    q, k, v = Problem(300, 200, 16, heads=4, key_heads=2).inputs()
    with saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        attention(q, k, v, impl="tiled", is_causal=True)
    assert [tuple(x.shape) for x in saved] == [q.shape, k.shape, v.shape, q.shape, (1, 4, 300)]


def test_a_gradient_of_o_alone_and_of_the_logsumexp_alone() -> None:
    q, k, v = Problem(20, 20, 8, "float64").inputs()
    for output in (0, 1):
        ours, oracle = (
            torch.autograd.grad(
                attention(q, k, v, impl=impl, is_causal=True, return_lse=True)[output].sum(),
                (q, k, v),
                allow_unused=True,
            )
            for impl in ("tiled", "reference")
        )
        for x, y in zip(ours, oracle, strict=True):
            torch.testing.assert_close(torch.zeros_like(v) if y is None else y, x)


def test_the_second_derivative_of_tiled_is_a_clear_error() -> None:
    q, k, v = Problem(8, 8, 8, "float64").inputs()
    (dq,) = torch.autograd.grad(attention(q, k, v, impl="tiled").square().sum(), q, create_graph=True)
    with pytest.raises(
        NoSecondDerivative, match=r"tiled has no second derivative.*impl='reference' and impl='naive' can"
    ):
        dq.sum().backward()


@pytest.mark.parametrize("impl", ["reference", "naive"])
def test_second_derivatives_of_the_plain_ones(impl: str) -> None:
    q, k, v = (torch.randn(1, 1, 3, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradgradcheck(lambda *x: attention(*x, impl=impl, is_causal=True), (q, k, v))


def test_a_backend_that_turns_its_inputs_down_is_unsupported_with_its_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither cuDNN nor efficient exists on a CPU, so asking for one alone is what a refusal looks like."""
    q, k, v = Problem(8, 8, 16).inputs()
    with pytest.raises(UnsupportedAttention, match="sdpa_cudnn cannot take these inputs: "):
        sdpa.attention(q, k, v, is_causal=True, scale=1.0, return_lse=False, name="sdpa_cudnn")


@pytest.mark.parametrize(
    ("text", "is_refusal"),
    [
        ("No viable backend for scaled_dot_product_attention was found.", True),
        ("cuDNN Frontend error: [cudnn_frontend] Error: No valid execution plans built.", True),
        ("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later", False),
        ("The size of tensor a (3) must match the size of tensor b (4)", False),
    ],
)
def test_what_fails_is_no_refusal(monkeypatch: pytest.MonkeyPatch, text: str, is_refusal: bool) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(sdpa.F, "scaled_dot_product_attention", fail)
    q, k, v = Problem(8, 8, 16).inputs()
    with pytest.raises(UnsupportedAttention if is_refusal else RuntimeError) as caught:
        sdpa.attention(q, k, v, is_causal=True, scale=1.0, return_lse=False, name="sdpa_cudnn")
    assert isinstance(caught.value, UnsupportedAttention) == is_refusal


def test_of_torchs_reasons_those_stand_that_are_about_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        for text in (
            "Memory efficient kernel not used because:",
            "Memory Efficient attention has been runtime disabled.",
            "Flash attention kernel not used because:",
            "Flash attention only supports gpu architectures from sm80 on. (Triggered internally at x.cpp)",
        ):
            warnings.warn(text, stacklevel=1)
        raise RuntimeError("No available kernel. Aborting execution.")

    monkeypatch.setattr(sdpa.F, "scaled_dot_product_attention", refuse)
    q, k, v = Problem(8, 8, 16).inputs()
    with pytest.warns(UserWarning, match="kernel not used"), pytest.raises(UnsupportedAttention) as refused:
        sdpa.attention(q, k, v, is_causal=True, scale=1.0, return_lse=False, name="sdpa_flash")
    told = "Flash attention only supports gpu architectures from sm80 on."
    assert str(refused.value) == f"sdpa_flash cannot take these inputs: {told}"


def test_a_named_backend_is_the_only_one_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[Any] = []

    def spy(*arguments: Any, **options: Any) -> torch.Tensor:
        allowed.append(torch.nn.attention._cur_sdpa_kernel_backends())
        return arguments[0]

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", spy)
    q, k, v = Problem(8, 8, 16).inputs()
    for name, backend in sdpa.BACKENDS.items():
        sdpa.attention(q, k, v, is_causal=True, scale=1.0, return_lse=False, name=name)
        assert (allowed.pop() == [backend]) == (backend is not None)


@pytest.mark.parametrize("impl", ["naive", "reference", "tiled", "sdpa", "sdpa_math", "sdpa_flash"])
def test_an_operator_can_be_compiled_whole(impl: str) -> None:
    """The decoder is compiled with any of them inside; a graph break would measure something else."""
    assert unsupported_reason(impl, device="cpu", dtype=torch.float32, head_dim=16) is None
    q, k, v = Problem(16, 16, 16).inputs()
    bound = bind(impl)
    compiled = torch.compile(lambda *x: bound(*x, is_causal=True) * 2, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), attention(q, k, v, impl=impl, is_causal=True) * 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("impl", ["reference", "tiled"])
def test_autocast_rounds_nothing_inside_of_a_hand_written_algorithm(impl: str, dtype: str) -> None:
    """To the bit, forward and backward; scores of fp16 beyond 65 504 before they are scaled stay finite."""
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, 150, 64) * factor for factor in (120, 120, 1)]

    def run(*, autocast: bool) -> list[torch.Tensor]:
        leaves = [x.to(getattr(torch, dtype)).requires_grad_() for x in inputs]
        with torch.autocast("cpu", torch.float16 if dtype == "float16" else torch.bfloat16, enabled=autocast):
            o, lse = attention(*leaves, is_causal=True, impl=impl, return_lse=True)
            (o.float().sum() + lse.sum()).backward()  # inside, where a backward pass may run as well
        return [o, lse, *(leaf.grad for leaf in leaves)]

    for found, right in zip(run(autocast=True), run(autocast=False), strict=True):
        assert torch.isfinite(right).all() or impl == "reference"
        torch.testing.assert_close(found, right, rtol=0, atol=0, equal_nan=True)
