"""The table of tile shapes, and how a problem finds its row."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from stepbench.architectures import TABLE_OF
from stepbench.kernels.triton import tiles
from stepbench.kernels.triton.tiles import KERNELS, Plan, Tile, plan_for, read_table, split_head_dim

ARCHITECTURES = ("sm_75", "sm_80", "sm_89", "sm_90", "sm_100", "sm_120")


@pytest.mark.parametrize(
    ("head_dim", "chunks"),
    [(8, (16, 0)), (16, (16, 0)), (20, (32, 0)), (40, (32, 16)), (64, (64, 0)), (80, (64, 16)), (96, (64, 32)),
     (112, (128, 0)), (128, (128, 0)), (144, (128, 32)), (160, (128, 32)), (192, (128, 64)), (200, (256, 0)),
     (256, (256, 0))],
)  # fmt: skip
def test_a_head_dim_is_one_or_two_powers_of_two(head_dim: int, chunks: tuple[int, int]) -> None:
    assert split_head_dim(head_dim) == chunks


def test_no_head_dim_is_cut_short_and_few_columns_are_wasted() -> None:
    for head_dim in range(8, 257):
        main, tail = split_head_dim(head_dim)
        whole = max(1 << (head_dim - 1).bit_length(), 16)
        assert head_dim <= main + tail <= whole
        assert all(n & (n - 1) == 0 and (n == 0 or n >= 16) for n in (main, tail))


@pytest.mark.parametrize("series", ["3.6", "3.7"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_shipped_table_has_a_row_for_every_problem(architecture: str, series: str) -> None:
    dtypes = ("float16",) if architecture == "sm_75" else ("bfloat16", "float16", "float32")
    head_dims = range(8, tiles.MAX_TURING_HEAD_DIM + 1 if architecture == "sm_75" else 257)
    for head_dim, dtype, is_causal in itertools.product(head_dims, dtypes, (True, False)):
        plan = plan_for(architecture, head_dim, dtype, is_causal, series=series)
        for kernel in KERNELS:
            tile = getattr(plan, kernel)
            if tile is None:
                assert kernel == "backward_reduced" or (kernel, head_dim > 128) == ("backward_fused", True)
                continue
            assert {tile.rows, tile.columns} <= {16, 32, 64, 128, 256}
            assert tile.warps in (4, 8, 16)
        assert Plan.from_text(plan.to_text()) == plan


def test_the_shipped_table_says_where_it_comes_from() -> None:
    for section in read_table().values():
        assert section["origin"]
        assert {"machine", "date", "triton", "descriptors", "rows"} <= section.keys()


@pytest.mark.parametrize("architecture", sorted(set(TABLE_OF.values())))
def test_there_is_a_table_of_each_architecture(architecture: str) -> None:
    assert architecture in read_table()


def test_a_cap_on_registers_is_part_of_a_tile() -> None:
    plain, capped = Tile(64, 64, 4, 3), Tile(64, 64, 4, 3, 168)
    assert (plain.shape, capped.shape) == ([64, 64, 4, 3], [64, 64, 4, 3, 168])
    assert plain.options == {"num_warps": 4, "num_stages": 3}
    assert capped.options == {"num_warps": 4, "num_stages": 3, "maxnreg": 168}
    assert str(capped) == "64×64, 4 warps, 3 stages, at most 168 registers"
    assert Tile(*capped.shape) == capped != plain


def test_a_version_of_triton_has_rows_of_its_own(tmp_path: Path) -> None:
    table = small_table()
    row = table["sm_90"]["rows"][1]
    table["sm_90"]["rows"].append({**row, "triton": "3.6", "forward": [16, 16, 4, 1]})
    tiles.write_table(table, tmp_path / "tiles.json")

    def forward(head_dim: int, series: str) -> Tile:
        return plan_for("sm_90", head_dim, "bfloat16", True, tmp_path / "tiles.json", series).forward

    assert forward(64, "3.6") == Tile(16, 16, 4, 1)
    assert forward(64, "3.7") == forward(64, "4.0") == Tile(64, 32, 4, 2)
    assert forward(128, "3.6") == Tile(128, 32, 4, 2)


def small_table() -> dict[str, Any]:
    def row(head_dim: int, dtype: str) -> dict[str, Any]:
        shapes = {kernel: [head_dim, 32, 4, 2] for kernel in KERNELS}
        return {"head_dim": head_dim, "dtype": dtype, "causal": True, **shapes}

    rows = [row(128, "bfloat16"), row(64, "bfloat16"), row(64, "float32"), row(32, "float32")]
    return {"sm_90": {"origin": "a test", "descriptors": True, "rows": rows}}


def test_the_smallest_head_dim_that_is_not_smaller(tmp_path: Path) -> None:
    tiles.write_table(small_table(), tmp_path / "tiles.json")
    for head_dim, found in ((8, 64), (64, 64), (65, 128), (128, 128)):
        plan = plan_for("sm_90", head_dim, "bfloat16", True, tmp_path / "tiles.json")
        tile = Tile(found, 32, 4, 2)
        assert plan == Plan(tile, tile, tile, tile, descriptors=True, backward_reduced=tile)


def test_float32_is_looked_up_by_the_width_of_its_slices(tmp_path: Path) -> None:
    tiles.write_table(small_table(), tmp_path / "tiles.json")
    for head_dim, found in ((16, 32), (32, 32), (33, 64), (256, 64)):
        assert plan_for("sm_90", head_dim, "float32", True, tmp_path / "tiles.json").forward.rows == found


def test_a_problem_without_a_row_says_what_there_is(tmp_path: Path) -> None:
    tiles.write_table(small_table(), tmp_path / "tiles.json")
    with pytest.raises(
        ValueError,
        match=r"must have a row for sm_90, bfloat16, causal=True and head dim 256, got head dims \[64, 128\]",
    ):
        plan_for("sm_90", 256, "bfloat16", True, tmp_path / "tiles.json")
    with pytest.raises(ValueError, match=r"must have a row for sm_70, .*, got head dims \[\]"):
        plan_for("sm_70", 64, "bfloat16", True, tmp_path / "tiles.json")


def test_a_written_table_is_read_again_and_is_sorted_one_row_a_line(tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    tiles.write_table(small_table(), path)
    assert json.loads(path.read_text())["sm_90"]["origin"] == "a test"
    assert [line.count("head_dim") for line in path.read_text().splitlines() if "head_dim" in line] == [1, 1, 1, 1]
    changed = small_table()
    changed["sm_90"]["rows"][0]["forward"] = [64, 64, 8, 3]
    tiles.write_table(changed, path)
    assert plan_for("sm_90", 128, "bfloat16", True, path).forward == Tile(64, 64, 8, 3)


def test_the_shipped_file_is_as_this_code_writes_it(tmp_path: Path) -> None:
    tiles.write_table(read_table(), tmp_path / "tiles.json")
    assert (tmp_path / "tiles.json").read_text() == tiles.TABLE.read_text()


def test_heads_that_share_a_key_head_get_tiles_that_do_not_spill_there() -> None:
    plain, grouped = (plan_for("sm_90", 128, "bfloat16", True, series="3.7", grouped=each) for each in (False, True))
    assert grouped != plain
    assert grouped.forward == plain.forward
    assert grouped.backward_keys.stages == 4
    assert plan_for("sm_80", 64, "bfloat16", True, grouped=True) == plan_for("sm_80", 64, "bfloat16", True)
