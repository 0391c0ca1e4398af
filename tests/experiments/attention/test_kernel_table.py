"""The table of compiled figures shows what ships, and is rendered anew when that changes."""

from __future__ import annotations

from stepbench.experiments.attention import kernel_table
from stepbench.pipeline import reach


def test_it_shows_every_kernel_on_every_architecture():
    table = kernel_table.table()
    shown = {(row["kernel"], row["architecture"], row["head_dim"]) for row in table.rows}
    kernels = ("forward", "backward_keys", "backward_queries", "backward_fused", "row_statistics")
    assert shown == {(k, a, d) for k in kernels for a in ("sm_80", "sm_90", "sm_100") for d in (64, 128)}
    texts = {column.heading: column.text(table.rows[0]) for column in table.columns}
    assert texts["spills"] == "0 B"
    assert texts["architecture"] == "sm_80"
    assert texts["instructions"].endswith(" mma")


def test_a_change_of_the_figures_is_a_change_of_what_is_rendered():
    source = reach.source("stepbench.experiments.attention.tables")
    assert any(name.endswith("figures.json") for name in source), sorted(source)


def test_figures_of_tiles_that_were_tuned_since_are_told():
    rows, tiles = kernel_table.read()["rows"], kernel_table.read(kernel_table.TILES)
    shown = [row for row in rows if row["dtype"] == "bfloat16"]
    assert kernel_table.tuned_since(shown, tiles) == []
    for row in tiles["sm_90"]["rows"]:
        if row["head_dim"] == 64:
            row["forward"] = [64, 32, 4, 2]
    assert kernel_table.tuned_since(shown, tiles) == ["sm_90"]
    assert "have been tuned since" not in kernel_table.table().caption
