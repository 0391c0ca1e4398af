"""Launches without a GPU: what a launch compiles is what `resources` reports on, and what descriptors are made of."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from tests.testing.interpreter import ARRANGEMENTS  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402 - after the check that there is a triton

from stepbench.kernels.triton import candidates, compiling, launch, layouts, operator, tiles  # noqa: E402
from stepbench.kernels.triton.tiles import Plan, Tile  # noqa: E402

TILE = Tile(64, 32, 8, 2, 128)
Launches = list[dict[str, Any]]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    """Collect what Triton was about to compile, on a driver that only says which device it stands for."""
    seen: Launches = []

    def note(**about: Any) -> bool:
        compiled = about["compile"]
        seen.append(
            {
                "name": about["fn"].name,
                "signature": compiled["signature"],
                "constants": compiled["constants"],
                "attributes": compiled["configs"][0],
                **json.loads(compiled["specialization_data"])["options"],
            }
        )
        return True  # nothing is compiled, nothing runs

    driver = SimpleNamespace(
        get_current_device=lambda: "none",  # Triton keeps what it knows of a device; a real one has a number
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
    )
    monkeypatch.setattr(triton.knobs.runtime, "jit_cache_hook", note)
    monkeypatch.setattr(triton.runtime.driver, "_active", driver)  # where there is no GPU, `reset_active` would raise
    return seen


def spaceless(signature: dict[str, Any]) -> dict[str, str]:
    """Make the types comparable: Triton writes the shape of a descriptor with spaces, and reads it either way."""
    return {name: str(type_).replace(" ", "") for name, type_ in signature.items()}


def run(
    head_dim: int,
    dtype: torch.dtype,
    *,
    descriptors: bool,
    atomics: bool,
    reduced: bool = False,
    one_loop: bool = False,
) -> None:
    q, k, v = (torch.zeros(2, 4, 96, head_dim, dtype=dtype) for _ in range(3))
    plan = Plan(TILE, TILE, TILE, TILE, descriptors, TILE, one_loop, reduced)
    o, lse = launch.forward(q, k, v, 1.0, True, plan)
    launch.backward(o, None, q, k, v, o, lse, 1.0, True, plan, atomics=atomics)


@pytest.mark.parametrize("atomics", [False, True], ids=["two passes", "atomics"])
@pytest.mark.parametrize("descriptors", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("head_dim", [64, 80])
def test_a_launch_compiles_what_resources_reports_on(
    launches: Launches, head_dim: int, dtype: str, descriptors: bool, atomics: bool
) -> None:
    run(head_dim, getattr(torch, dtype), descriptors=descriptors, atomics=atomics)
    kernels = ["forward", "row_statistics"] + (["backward_fused"] if atomics else ["backward_keys", "backward_queries"])
    assert_launched(launches, kernels, head_dim, dtype, descriptors=descriptors)


def test_a_launch_of_the_rewrites_compiles_what_resources_reports_on(launches: Launches) -> None:
    run(64, torch.bfloat16, descriptors=True, atomics=True, reduced=True, one_loop=True)
    kernels = ["forward_one_loop", "row_statistics", "backward_reduced"]
    assert_launched(launches, kernels, 64, "bfloat16", descriptors=True)


def assert_launched(launches: Launches, kernels: list[str], head_dim: int, dtype: str, *, descriptors: bool) -> None:
    assert len(launches) == len(kernels)
    for kernel, seen in zip(kernels, launches, strict=True):
        is_statistics = kernel == "row_statistics"
        rows = tiles.statistics_rows(head_dim)
        tile = Tile(rows, rows, 4, 1) if is_statistics else TILE
        with_descriptors = descriptors and not is_statistics and dtype != "float32"
        source = compiling.kernel_source(kernel, head_dim, dtype, tile, descriptors=with_descriptors)
        assert spaceless(seen["signature"]) == spaceless(source.signature)
        assert seen["constants"] == source.constants
        assert {path: found for path, found in seen["attributes"].items() if found} == source.attrs
        if not is_statistics:
            assert {name: seen[name] for name in TILE.options} == TILE.options


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("descriptors", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize(("head_dim", "compiled"), [(20, 32), (72, 80)])
def test_a_launch_at_any_head_dim_compiles_that_of_a_multiple_of_16(
    launches: Launches, head_dim: int, compiled: int, descriptors: bool, dtype: str
) -> None:
    q = torch.zeros(2, 4, 96, head_dim, dtype=getattr(torch, dtype))
    plan = Plan(TILE, TILE, TILE, TILE, descriptors).to_text()
    o, lse = operator.attention_forward(q, q, q, 1.0, True, False, plan)
    gradients = operator.attention_backward(o, None, q, q, q, o, lse, 1.0, True, False, plan)
    assert {x.shape for x in (o, *gradients)} == {q.shape}
    kernels = ["forward", "row_statistics", "backward_keys", "backward_queries"]
    assert_launched(launches, kernels, compiled, dtype, descriptors=descriptors)


@pytest.mark.parametrize(
    ("strides", "is_copied"), [((5120, 1280, 80, 1), False), ((5128, 1280, 80, 1), True), ((0, 0, 160, 1), False)]
)
def test_pointers_need_strides_that_triton_knows_to_be_aligned(strides: tuple[int, ...], is_copied: bool) -> None:
    plan = Plan(TILE, TILE, TILE, TILE, descriptors=False)
    x = torch.empty_strided((2, 4, 16, 80), strides, dtype=torch.bfloat16, device="meta")
    _, (y,) = layouts.readable(plan, x)
    assert (y is not x) == is_copied


@pytest.mark.parametrize("arrange", ARRANGEMENTS)
def test_only_what_cannot_be_read_in_place_is_copied(arrange: str) -> None:
    plan = Plan(TILE, TILE, TILE, TILE, descriptors=True)
    x = ARRANGEMENTS[arrange](torch.randn(2, 4, 24, 64, dtype=torch.bfloat16))
    descriptors, (y,) = layouts.readable(plan, x)
    assert descriptors
    assert torch.equal(x, y)
    assert (y is x) == (arrange in ("contiguous", "from_projection", "from_packed"))
    assert y.data_ptr() % 16 == 0
    assert all(stride % 8 == 0 for stride in y.stride()[:-1])


def test_the_output_is_laid_out_like_the_queries() -> None:
    from_projection = ARRANGEMENTS["from_projection"](torch.randn(2, 4, 24, 64))
    assert layouts.empty_like_rows(from_projection).stride() == from_projection.stride()
    transposed = ARRANGEMENTS["transposed"](torch.randn(2, 4, 24, 64))
    assert layouts.empty_like_rows(transposed).stride(-1) == 1


@pytest.mark.parametrize(("row_stride", "is_copied"), [(2**23 - 16, False), (2**23, True), (20_000_000, True)])
def test_rows_that_stand_too_far_apart_for_32_bits_are_copied(row_stride: int, is_copied: bool) -> None:
    """Within a tile of up to 256 rows the kernels for 16 bits count elements in 32 bits."""
    plan = Plan(TILE, TILE, TILE, TILE, descriptors=False)
    x = torch.empty_strided((1, 1, 128, 16), (16, 16, row_stride, 1), dtype=torch.bfloat16, device="meta")
    _, (y,) = layouts.readable(plan, x)
    assert (y is not x) == is_copied
    assert y.stride(2) == (16 if is_copied else row_stride)


def test_no_tile_has_more_rows_than_the_limit_on_strides_assumes() -> None:
    shapes = [
        tile for each in (*candidates.CANDIDATES.values(), *candidates.SINGLE_CANDIDATES.values()) for tile in each
    ]
    assert max(max(tile.rows, tile.columns) for tile in shapes) <= tiles.MOST_ROWS


def test_an_output_is_not_laid_out_in_rows_that_stand_too_far_apart() -> None:
    time_first = torch.empty(128, 8, 64, 16_384, device="meta").permute(1, 2, 0, 3)  # [T, B, H, D] in memory
    assert time_first.stride(2) == 2**23
    assert layouts.empty_like_rows(time_first).is_contiguous()


@pytest.mark.parametrize(("key_heads", "stages"), [(4, 3), (2, 4)])
def test_the_operator_takes_the_tiles_of_its_heads(
    monkeypatch: pytest.MonkeyPatch, key_heads: int, stages: int
) -> None:

    if tiles.triton_series() != "3.7":
        pytest.skip("the stages are those of Triton 3.7's table")
    plans: list[str] = []

    def forward(q: torch.Tensor, *arguments: Any) -> tuple[torch.Tensor, None]:
        plans.append(arguments[-1])
        return q, None

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(operator, "attention_forward", forward)
    q, k = (torch.zeros(1, heads, 64, 128, dtype=torch.bfloat16) for heads in (4, key_heads))
    operator.attention(q, k, k, is_causal=True, scale=1.0, return_lse=False)
    assert Plan.from_text(plans[0]).backward_keys.stages == stages
