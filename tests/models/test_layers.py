import cmath
import math

import pytest
import torch
from torch.nn import functional as F

from stepbench.models.layers import (
    INITIAL_STD,
    Projection,
    SelfAttention,
    SwiGLU,
    TokenEmbedding,
    rotary_angles,
    rotate,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def angles(context: int, head_dim: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return rotary_angles(torch.empty(1, context, 0, dtype=dtype), head_dim)


def test_rotation_is_multiplication_by_a_unit_complex_number() -> None:
    context, head_dim = 9, 6
    x = torch.randn(1, 1, context, head_dim, dtype=torch.float64)
    turned = rotate(x, *angles(context, head_dim))
    for position in range(context):
        for pair in range(head_dim // 2):
            before = complex(x[0, 0, position, pair], x[0, 0, position, pair + head_dim // 2])
            after = before * cmath.exp(1j * position * 10000.0 ** (-2 * pair / head_dim))
            assert turned[0, 0, position, pair].item() == pytest.approx(after.real, abs=1e-12)
            assert turned[0, 0, position, pair + head_dim // 2].item() == pytest.approx(after.imag, abs=1e-12)


def test_scores_depend_on_the_distance_alone() -> None:
    q, k = (torch.randn(1, 1, 1, 16, dtype=torch.float64).expand(1, 1, 40, 16) for _ in range(2))
    scores = (rotate(q, *angles(40, 16)) @ rotate(k, *angles(40, 16)).transpose(-1, -2))[0, 0]
    torch.testing.assert_close(scores[:-1, :-1], scores[1:, 1:], rtol=0, atol=1e-12)
    assert not torch.allclose(scores[0, 0], scores[0, 1])


def test_a_longer_context_keeps_the_angles_of_a_shorter_one() -> None:
    for short, long in zip(angles(7, 8), angles(300, 8), strict=True):
        assert torch.equal(short, long[:7])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_rotation_keeps_the_dtype_and_turns_in_the_angles_precision(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 2048, 16, dtype=torch.float64).to(dtype)
    turned = rotate(x, *angles(2048, 16, torch.promote_types(dtype, torch.float32)))
    assert turned.dtype == dtype
    exact = rotate(x.double(), *angles(2048, 16))
    # One rounding of the result, and a few of the angle, which reaches 2048 radians.
    angle_eps = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    band = exact.abs() * torch.finfo(dtype).eps + x.double().abs().max() * 2048 * 4 * angle_eps
    assert ((turned.double() - exact).abs() <= band).all()


def test_attention_sees_heads_first_and_is_told_to_be_causal() -> None:
    seen = []

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, is_causal: bool) -> torch.Tensor:
        seen.append((q.shape, k.shape, v.shape, is_causal))
        return v

    layer = SelfAttention(12, 3, attention=attention, is_causal=True, dtype=torch.float64)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    # An attention that returns its values leaves two matrices: the heads join as they were split.
    torch.testing.assert_close(layer(x, *angles(5, 4)), layer.output(layer.value(x)))
    shape = torch.Size([2, 3, 5, 4])
    assert seen == [(shape, shape, shape, True)]


def test_swiglu_is_its_formula() -> None:
    layer = SwiGLU(6, 10, dtype=torch.float64)
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    gate, up, down = (matrix.weight for matrix in (layer.gate, layer.up, layer.down))
    expected = torch.einsum("...f,cf->...c", F.sigmoid(x @ gate.T) * (x @ gate.T) * (x @ up.T), down)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("layer", [Projection(300, 400), TokenEmbedding(300, 400)], ids=["projection", "embedding"])
def test_weights_start_normal(layer: torch.nn.Linear | torch.nn.Embedding) -> None:
    layer.reset_parameters()
    weights = layer.weight.detach().double()
    # Five standard errors of the mean and of the standard deviation.
    count = weights.numel()
    assert abs(weights.mean()) < 5 * INITIAL_STD / math.sqrt(count)
    assert abs(weights.std() - INITIAL_STD) < 5 * INITIAL_STD / math.sqrt(2 * count)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
