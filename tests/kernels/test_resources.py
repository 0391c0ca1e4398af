"""Every kernel at its shipped tiles, compiled for GPUs that are not here: spills, shared memory, instructions."""

from collections import defaultdict
from typing import Any

import pytest

pytest.importorskip("triton")

from stepbench.kernels.triton import resources
from stepbench.kernels.triton.resources import (
    ARCHITECTURES,
    SHARED_BYTES,
    compile_figures,
    shipped_variants,
    with_figures,
)
from stepbench.kernels.triton.tiles import Tile

EXPECTED = {"sm_80": "mma", "sm_90": "wgmma", "sm_100": "tcgen05"}
VARIANTS: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
for architecture in ARCHITECTURES:
    for variant in shipped_variants(architecture):
        VARIANTS[architecture, variant["dtype"], variant["head_dim"]].append(variant)


@pytest.mark.parametrize("key", VARIANTS, ids=lambda key: "-".join(map(str, key)))
def test_shipped_tiles(key: tuple[str, str, int]) -> None:
    rows = [with_figures(variant) for variant in VARIANTS[key]]
    assert {row["kernel"] for row in rows} >= {"forward", "row_statistics", "backward_keys", "backward_queries"}
    for row in rows:
        assert row["spill_bytes"] == 0, f"{row['kernel']} must not spill, got {row}"
        assert not row["serialized"], f"{row['kernel']} must overlap its wgmma instructions, got {row}"
        assert row["shared_bytes"] <= SHARED_BYTES[row["architecture"]][0], f"{row['kernel']} must fit, got {row}"
        assert 0 < row["registers"] <= 255
        assert row["programs"] >= 1
        if row["kernel"] == "row_statistics":
            assert not row["instructions"]
        elif row["dtype"] == "float32" and row["kernel"] == "backward_fused":
            assert row["instructions"]  # its products are too narrow for a group of four warps
        else:
            assert EXPECTED[row["architecture"]] in row["instructions"], f"the fast instruction is missing: {row}"


def test_a_spill_and_a_serialized_kernel_are_seen() -> None:
    options: dict[str, Any] = {"kernel": "forward", "architecture": "sm_90", "dtype": "bfloat16", "descriptors": True}
    assert compile_figures(**options, head_dim=128, tile=Tile(128, 128, 4, 2))["spill_bytes"] > 0
    assert compile_figures(**options, head_dim=64, tile=Tile(128, 128, 4, 3))["serialized"]


def test_causality_is_no_variant_of_its_own() -> None:
    """Half the compile time, and half the code to trust: one kernel serves both."""
    forward = [v for v in shipped_variants("sm_90") if (v["kernel"], v["dtype"]) == ("forward", "bfloat16")]
    assert len(forward) == len({(v["head_dim"], v["tile"]) for v in forward})
    assert {v["causal"] for v in shipped_variants("sm_90")} <= {"yes", "no", "both"}


def test_the_table_is_made_by_several_processes() -> None:
    rows = resources.table(architectures=("sm_90",), head_dims=(64,), dtypes=("bfloat16",), processes=1)
    assert [row["kernel"] for row in rows] == [v["kernel"] for v in VARIANTS["sm_90", "bfloat16", 64]]
    assert all(row["registers"] > 0 for row in rows)
