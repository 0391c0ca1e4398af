"""On a GPU: every implementation against float64, the layouts, the bits, the memory. `make gpu-check` runs these."""

from typing import Any

import pytest
import torch
from tests.testing.interpreter import ARRANGEMENTS
from tests.testing.oracles import Problem, assert_as_exact_as_plain, differentiate

from stepbench.kernels.api import IMPLEMENTATIONS, UnsupportedAttention, attention, unsupported_reason

pytestmark = pytest.mark.gpu

OURS = ["triton", "triton_atomics", "triton_reduced", "triton_one_loop"]
COMPILED = ("compiled", "flex")  # by torch.compile, which takes longest: where time is short, ours come first
WITH_LSE = ["naive", "reference", "tiled", *OURS, "flex"]


def check(problem: Problem, impl: str, *, arrange: str = "contiguous") -> None:
    with_lse = impl in WITH_LSE
    reason = unsupported_reason(
        impl, device="cuda", dtype=getattr(torch, problem.dtype), head_dim=problem.head_dim, q_len=problem.q_len,
        k_len=problem.k_len,
        is_causal=problem.is_causal,
        grouped=problem.heads > problem.key_heads,
        return_lse=with_lse,
    )  # fmt: skip
    if reason:
        pytest.skip(reason)
    inputs = tuple(ARRANGEMENTS[arrange](x.detach()).requires_grad_() for x in problem.inputs())
    try:
        answer: Any = attention(
            *inputs, is_causal=problem.is_causal, scale=problem.scale, impl=impl, return_lse=with_lse
        )
    except UnsupportedAttention as refusal:
        pytest.skip(str(refusal))
    o, lse = answer if with_lse else (answer, None)
    assert_as_exact_as_plain(differentiate(o, lse, inputs, problem), problem)


@pytest.mark.parametrize("is_causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("impl", sorted(IMPLEMENTATIONS, key=COMPILED.__contains__))
def test_every_implementation(impl: str, head_dim: int, dtype: str, is_causal: bool) -> None:
    check(Problem(512, 512, head_dim, dtype, is_causal, batch=2, heads=4, key_heads=4, device="cuda"), impl)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("head_dim", [8, 16, 20, 32, 40, 80, 96, 112, 160, 192, 256])
@pytest.mark.parametrize("impl", OURS)
def test_every_head_dim(impl: str, head_dim: int, dtype: str) -> None:
    check(Problem(300, 300, head_dim, dtype, device="cuda"), impl)


@pytest.mark.parametrize("is_causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize(
    ("q_len", "k_len"), [(1, 1), (1, 700), (700, 1), (127, 129), (129, 127), (333, 1000), (1000, 333), (1024, 1024)]
)
@pytest.mark.parametrize("impl", [*OURS, "sdpa", "sdpa_flash", "sdpa_cudnn", "flex"])
def test_every_length(impl: str, q_len: int, k_len: int, is_causal: bool) -> None:
    check(Problem(q_len, k_len, 64, "bfloat16", is_causal, device="cuda"), impl)


@pytest.mark.parametrize(("heads", "key_heads"), [(8, 1), (8, 2)])
@pytest.mark.parametrize("impl", [*OURS, "sdpa_flash", "flex"])
def test_grouped_queries(impl: str, heads: int, key_heads: int) -> None:
    check(Problem(400, 500, 64, "bfloat16", heads=heads, key_heads=key_heads, batch=2, device="cuda"), impl)


@pytest.mark.parametrize("arrange", [name for name in ARRANGEMENTS if name != "expanded"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_inputs_of_any_layout(dtype: str, arrange: str) -> None:
    check(Problem(200, 200, 64, dtype, batch=2, heads=4, key_heads=4, device="cuda"), "triton", arrange=arrange)


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("impl", OURS)
def test_a_long_context(impl: str, head_dim: int) -> None:
    check(Problem(4096, 4096, head_dim, "bfloat16", heads=1, key_heads=1, device="cuda"), impl)


def test_the_default_backward_gives_the_same_bits_twice() -> None:
    def run() -> list[torch.Tensor]:
        q, k, v = Problem(1500, 1500, 64, "bfloat16", heads=16, key_heads=16, device="cuda").inputs()
        o = attention(q, k, v, is_causal=True, impl="triton")
        return [o, *torch.autograd.grad(o.float().square().sum(), (q, k, v))]

    assert all(map(torch.equal, run(), run()))


@pytest.mark.parametrize("impl", OURS)
def test_memory_grows_with_the_context_and_not_with_its_square(impl: str) -> None:
    q, k, v = Problem(16_384, 16_384, 64, "bfloat16", heads=4, key_heads=4, device="cuda").inputs()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    attention(q, k, v, is_causal=True, impl=impl).float().sum().backward()
    scores_bytes = 4 * 16_384**2 * 2
    assert torch.cuda.max_memory_allocated() - before < scores_bytes / 16


@pytest.mark.parametrize("impl", OURS)
def test_the_operator_is_compiled_into_one_graph(impl: str) -> None:
    q, k, v = Problem(256, 256, 64, "bfloat16", device="cuda").inputs()
    compiled = torch.compile(lambda *x: attention(*x, impl=impl, is_causal=True) * 2, fullgraph=True)
    torch.testing.assert_close(compiled(q, k, v), attention(q, k, v, impl=impl, is_causal=True) * 2)
    compiled(q, k, v).float().sum().backward()
    assert q.grad is not None


def test_tuning_chooses_a_tile_that_computes_correctly() -> None:
    from stepbench.architectures import architecture_of
    from stepbench.kernels.triton import candidates, tune, tuned
    from stepbench.kernels.triton.tiles import Tile, plan_for

    problem = candidates.Problem(64, context=1024, tokens=2048, width=256)
    plan = plan_for(architecture_of(torch.cuda.get_device_capability()), 64, "bfloat16", True)
    tiles = [plan.forward, Tile(64, 32, 4, 2)]
    timings = tune.timed(problem, "forward", plan, [candidates.Candidate(tile) for tile in tiles])
    best = tuned.fastest(timings, "forward")
    assert best.tile in tiles
    assert 0 < best.seconds < 0.1
