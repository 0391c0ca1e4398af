"""What the kernel of head and loss costs: the kept figures, and some compiled anew for GPUs that are not here."""

import json
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

from stepbench.architectures import TABLE_OF  # noqa: E402
from stepbench.kernels.triton import loss_figures  # noqa: E402 - after the check that there is a triton

ROWS = loss_figures.read_figures()["rows"]


def test_the_kept_figures_are_of_every_variant_and_none_spills() -> None:
    told = [{key: row[key] for key in ("kernel", "architecture", "dtype", "tile")} for row in ROWS]
    assert told == loss_figures.shipped_variants()
    assert {row["architecture"] for row in ROWS} == set(TABLE_OF)
    for row in ROWS:
        assert row["spill_bytes"] == 0, row
        assert 16 < row["registers"] <= 255, row
        assert row["programs"] >= 2, row


@pytest.mark.parametrize(("architecture", "dtype"), [("sm_90", "bfloat16"), ("sm_75", "float32")])
def test_compiling_gives_the_kept_figures(architecture: str, dtype: str) -> None:
    kept = loss_figures.read_figures()
    if triton.__version__ != kept["triton"]:
        pytest.skip(f"loss-figures.json is of triton {kept['triton']}, this is {triton.__version__}")
    (row,) = (row for row in ROWS if (row["architecture"], row["dtype"]) == (architecture, dtype))
    variant = {key: row[key] for key in ("kernel", "architecture", "dtype", "tile")}
    assert loss_figures.with_figures(variant) == row


def test_what_is_written_is_read_again_and_figures_of_another_kernel_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    loss_figures.write_figures(ROWS, path)
    assert loss_figures.read_figures(path)["rows"] == ROWS
    path.write_text(json.dumps({"digest": "0", "rows": []}))
    with pytest.raises(ValueError, match="must be of today's kernel"):
        loss_figures.read_figures(path)
