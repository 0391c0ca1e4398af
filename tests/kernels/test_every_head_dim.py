"""No kernel spills at a head dim without a row of its own: there it takes the next row, which no figure is of."""

from typing import Any

import pytest

triton = pytest.importorskip("triton")

from stepbench.kernels.triton import tiles  # noqa: E402 - after the check that there is a triton
from stepbench.kernels.triton.candidates import is_clean  # noqa: E402
from stepbench.kernels.triton.compiling import SHARED_BYTES, compile_variant  # noqa: E402
from stepbench.kernels.triton.layouts import ALIGNMENT  # noqa: E402
from stepbench.kernels.triton.resources import ARCHITECTURES  # noqa: E402
from stepbench.kernels.triton.tiles import KERNELS, Plan, plan_for  # noqa: E402

DTYPE = {"sm_75": "float16"}  # of the others: bfloat16, which costs the same
QUICK_GROUPED = {("sm_90", 64), ("sm_90", 128)}  # of the models that are configured, on GPUs that train them
QUICK = {("sm_80", 144), ("sm_120", 176)}  # where most tiles spill


def between_rows() -> list[Any]:
    """Return each architecture with each head dim, a multiple of 16 as all are padded to, that has no row."""
    found = []
    for architecture in ARCHITECTURES:
        dtype = DTYPE.get(architecture, "bfloat16")
        rows = {row["head_dim"] for row in tiles.read_table()[architecture]["rows"] if row["dtype"] == dtype}
        for head_dim in sorted(set(range(ALIGNMENT, max(rows), ALIGNMENT)) - rows):
            is_quick = (architecture, head_dim) in QUICK
            found.append(pytest.param(architecture, head_dim, marks=[] if is_quick else pytest.mark.slow))
    return found


def launched(kernel: str, plan: Plan, head_dim: int) -> bool:
    """Tell whether there is a tile, and an implementation that launches the kernel at this head dim."""
    return getattr(plan, kernel) is not None and not (
        kernel == "backward_reduced" and tiles.split_head_dim(head_dim)[1]
    )


@pytest.mark.parametrize(("architecture", "head_dim"), between_rows())
def test_no_kernel_spills_at_a_head_dim_between_rows(architecture: str, head_dim: int) -> None:
    dtype = DTYPE.get(architecture, "bfloat16")
    plan = plan_for(architecture, head_dim, dtype, True)
    for kernel in KERNELS:
        if launched(kernel, plan, head_dim):
            compiled = compile_variant(
                kernel=kernel, architecture=architecture, head_dim=head_dim, dtype=dtype,
                tile=getattr(plan, kernel), descriptors=plan.descriptors,
            )  # fmt: skip
            assert is_clean(compiled.figures, SHARED_BYTES[architecture][0]), (kernel, compiled.figures)
            assert compiled.programs >= 1, kernel


def with_grouped_heads() -> list[Any]:
    """Return each architecture with each head dim, a multiple of 16, up to its largest row."""
    found = []
    for architecture in ARCHITECTURES:
        most = max(row["head_dim"] for row in tiles.read_table()[architecture]["rows"] if row["dtype"] != "float32")
        for head_dim in range(ALIGNMENT, most + 1, ALIGNMENT):
            is_quick = (architecture, head_dim) in QUICK_GROUPED
            found.append(pytest.param(architecture, head_dim, marks=[] if is_quick else pytest.mark.slow))
    return found


@pytest.mark.parametrize(("architecture", "head_dim"), with_grouped_heads())
def test_no_kernel_spills_where_heads_share_a_key_head(architecture: str, head_dim: int) -> None:
    """Their loop over heads costs registers; the kernels that own queries have none."""
    dtype = DTYPE.get(architecture, "bfloat16")
    plan = plan_for(architecture, head_dim, dtype, True, grouped=True)
    for kernel in ("backward_keys", "backward_fused", "backward_reduced"):
        if launched(kernel, plan, head_dim):
            compiled = compile_variant(
                kernel=kernel, architecture=architecture, head_dim=head_dim, dtype=dtype,
                tile=getattr(plan, kernel), descriptors=plan.descriptors, grouped=True,
            )  # fmt: skip
            assert is_clean(compiled.figures, SHARED_BYTES[architecture][0]), (kernel, compiled.figures)


def test_those_compiled_quickly_are_between_rows() -> None:
    assert {each.values for each in between_rows() if not each.marks} == QUICK
