"""Numerics of the Triton kernels without a GPU: in the interpreter, against float64."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.testing.interpreter import ARRANGEMENTS, Call, run
from tests.testing.oracles import QUANTITIES, Problem, assert_as_exact_as_plain

from stepbench.kernels.triton.tiles import split_head_dim


def check(interpreted: Call, problem: Problem, **options: object) -> None:
    got = interpreted(run, problem, **options)
    assert_as_exact_as_plain({name: torch.from_numpy(value) for name, value in got.items()}, problem)


@pytest.mark.parametrize("descriptors", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("is_causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_dtype(interpreted: Call, dtype: str, is_causal: bool, descriptors: bool) -> None:
    check(interpreted, Problem(96, 96, 64, dtype, is_causal), descriptors=descriptors)


@pytest.mark.parametrize("head_dim", [8, 16, 20, 40, 64, 80, 96, 112, 128, 256])
def test_every_head_dim(interpreted: Call, head_dim: int) -> None:
    check(interpreted, Problem(70, 70, head_dim, "bfloat16", heads=1, key_heads=1))


@pytest.mark.parametrize("head_dim", [20, 80, 112])
def test_pointers_stay_inside_a_head_dim_that_is_no_power_of_two(interpreted: Call, head_dim: int) -> None:
    check(interpreted, Problem(40, 40, head_dim, heads=2, key_heads=2), descriptors=False, arrange="from_packed")


@pytest.mark.parametrize("descriptors", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("is_causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize(
    ("q_len", "k_len"), [(1, 1), (1, 50), (50, 1), (33, 65), (65, 33), (31, 96), (64, 100), (97, 32)]
)
def test_every_length(interpreted: Call, q_len: int, k_len: int, is_causal: bool, descriptors: bool) -> None:
    """Odd lengths, one row, one column, fewer queries than keys, and fewer keys than queries: rows that see none."""
    check(interpreted, Problem(q_len, k_len, 16, is_causal=is_causal), descriptors=descriptors)


@pytest.mark.slow
@pytest.mark.parametrize("tile", [(16, 64), (64, 16), (32, 64), (64, 32)], ids=str)
def test_tiles_that_are_not_square(interpreted: Call, tile: tuple[int, int]) -> None:
    check(interpreted, Problem(130, 150, 32), tile=tile)
    check(interpreted, Problem(150, 130, 32), tile=tile)


@pytest.mark.parametrize("atomics", [False, True], ids=["two passes", "atomics"])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 1), pytest.param(6, 2, marks=pytest.mark.slow)])
def test_grouped_queries(interpreted: Call, heads: int, key_heads: int, atomics: bool) -> None:
    check(interpreted, Problem(50, 77, 32, "float16", heads=heads, key_heads=key_heads, batch=2), atomics=atomics)


@pytest.mark.parametrize("descriptors", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize(("q_len", "k_len"), [(96, 96), (45, 70), (70, 45)])
@pytest.mark.parametrize("head_dim", [64, 80])
def test_the_backward_pass_with_atomics(
    interpreted: Call, head_dim: int, q_len: int, k_len: int, descriptors: bool
) -> None:
    check(interpreted, Problem(q_len, k_len, head_dim, "bfloat16"), atomics=True, descriptors=descriptors)


@pytest.mark.parametrize("descriptors", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("is_causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize(
    ("q_len", "k_len"), [(1, 1), (1, 50), (50, 1), (96, 96), (45, 70), (70, 45), (31, 96), (97, 32)]
)
def test_one_loop_for_all_keys(interpreted: Call, q_len: int, k_len: int, is_causal: bool, descriptors: bool) -> None:
    check(interpreted, Problem(q_len, k_len, 64, "bfloat16", is_causal), one_loop=True, descriptors=descriptors)


@pytest.mark.parametrize("head_dim", [8, 64, 128])
@pytest.mark.parametrize("is_causal", [True, False], ids=["causal", "full"])
def test_one_loop_gives_the_same_bits_as_two(interpreted: Call, is_causal: bool, head_dim: int) -> None:
    problem = Problem(70, 90, head_dim, "float16", is_causal)
    two, one = interpreted(run, problem), interpreted(run, problem, one_loop=True)
    assert all(two[name].tobytes() == one[name].tobytes() for name in ("o", "lse"))


@pytest.mark.parametrize("descriptors", [True, False])
@pytest.mark.parametrize("key_heads", [2, 1])
@pytest.mark.parametrize(("q_len", "k_len"), [(96, 96), (45, 70), (70, 45)])
@pytest.mark.parametrize("head_dim", [20, 64, 128])
def test_the_backward_pass_with_a_reduction(
    interpreted: Call, head_dim: int, q_len: int, k_len: int, key_heads: int, descriptors: bool
) -> None:
    """The addition itself is a stand-in: Triton's interpreter has none."""
    problem = Problem(q_len, k_len, head_dim, "bfloat16", heads=2, key_heads=key_heads)
    check(interpreted, problem, tile=(32, 16), atomics=True, reduced=True, descriptors=descriptors)


@pytest.mark.parametrize("arrange", ARRANGEMENTS)
def test_inputs_of_any_layout(interpreted: Call, arrange: str) -> None:
    if arrange == "expanded":  # the same numbers for every head, so the problem is another one
        problem = Problem(40, 40, 16, heads=1, key_heads=1)
    else:
        problem = Problem(40, 40, 16, "float16", batch=2)
    check(interpreted, problem, arrange=arrange)


def test_without_a_gradient_of_the_logsumexp(interpreted: Call) -> None:
    check(interpreted, Problem(40, 72, 32), with_lse=False)


def test_more_pairs_than_share_the_cache(interpreted: Call) -> None:
    """Eleven pairs in sections of four and a half: the last section is shorter."""
    check(interpreted, Problem(64, 64, 32, heads=11, key_heads=11))


def test_large_scores_do_not_overflow(interpreted: Call) -> None:
    got = interpreted(run_with_large_scores)
    assert all(np.isfinite(value).all() for value in got.values())


def run_with_large_scores() -> dict[str, np.ndarray]:
    """Call the kernels on scores of about ±10⁵, whose exponentials float32 cannot hold."""
    from stepbench.kernels.triton import operator
    from stepbench.kernels.triton.tiles import Plan, Tile

    tile = Tile(32, 32, 4, 2)
    q, k, v = (x.detach().mul(100).requires_grad_() for x in Problem(48, 48, 64).inputs())
    o, lse = operator.attention(
        q, k, v, is_causal=True, scale=1.0, return_lse=True, plan=Plan(tile, tile, tile, tile, True)
    )
    gradients = torch.autograd.grad(o.sum() + lse.sum(), (q, k, v))
    return {n: x.detach().numpy() for n, x in zip(QUANTITIES, (o, lse, *gradients), strict=True)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_default_backward_gives_the_same_bits_twice(interpreted: Call, dtype: str) -> None:
    problem = Problem(40, 36, 24, dtype, heads=4)
    first, second = interpreted(run, problem), interpreted(run, problem)
    assert all(first[name].tobytes() == second[name].tobytes() for name in QUANTITIES)


@pytest.mark.slow
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    q_len=st.integers(1, 50),
    k_len=st.integers(1, 50),
    head_dim=st.sampled_from([8, 16, 24, 32, 40, 48]),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    is_causal=st.booleans(),
    key_heads=st.integers(1, 2),
    group=st.integers(1, 2),
    tile=st.sampled_from([(16, 16), (16, 32), (32, 16), (32, 32)]),
    descriptors=st.booleans(),
    atomics=st.booleans(),
    reduced=st.booleans(),
    one_loop=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_problem(
    interpreted: Call,
    q_len: int,
    k_len: int,
    head_dim: int,
    dtype: str,
    is_causal: bool,
    key_heads: int,
    group: int,
    tile: tuple[int, int],
    descriptors: bool,
    atomics: bool,
    reduced: bool,
    one_loop: bool,
    seed: int,
) -> None:
    problem = Problem(q_len, k_len, head_dim, dtype, is_causal, 1, key_heads * group, key_heads, seed)
    can_reduce = atomics and dtype != "float32" and not split_head_dim(head_dim)[1]
    options = {"atomics": atomics, "reduced": reduced and can_reduce, "one_loop": one_loop}
    check(interpreted, problem, tile=tile, descriptors=descriptors, **options)


def test_the_operator_is_compiled_into_one_graph_and_refuses_a_second_derivative(interpreted: Call) -> None:
    assert interpreted(compile_and_differentiate_twice) == (
        "triton has no second derivative: its gradients cannot be differentiated; impl='reference' and impl='naive' can"
    )


def compile_and_differentiate_twice() -> str:
    """Compile the operator whole, compare with eager, and return what a second derivative is refused with."""
    from stepbench.kernels.contract import NoSecondDerivative
    from stepbench.kernels.triton import operator
    from stepbench.kernels.triton.tiles import Plan, Tile

    tile = Tile(16, 16, 4, 2)
    plan = Plan(tile, tile, tile, tile, descriptors=True).to_text()

    def function(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return operator.attention_forward(q, k, v, 0.3, True, False, plan)[0] * 2

    inputs = Problem(24, 24, 16).inputs()
    outputs = function(*inputs), torch.compile(function, backend="aot_eager", fullgraph=True)(*inputs)
    gradients = [torch.autograd.grad(o.square().sum(), inputs, create_graph=True) for o in outputs]
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)
    try:
        gradients[0][0].sum().backward()
    except NoSecondDerivative as refusal:
        return str(refusal)
    return "nothing was refused"
