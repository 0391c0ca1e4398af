"""The table of compiled figures shows what ships, and is rendered anew when that changes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stepbench.experiments.attention import kernel_table, tables
from stepbench.pipeline import reach
from stepbench.reporting.frames import Results
from stepbench.reporting.peaks import Peaks


def test_it_shows_every_kernel_on_every_architecture():
    table = kernel_table.table()
    shown = {(row["kernel"], row["architecture"], row["head_dim"]) for row in table.rows}
    kernels = ("forward", "backward_keys", "backward_queries", "backward_fused", "row_statistics")
    everywhere = {(k, a, d) for k in kernels for a in ("sm_80", "sm_90", "sm_100", "sm_120") for d in (64, 128)}
    assert shown == everywhere | {(k, "sm_90", d) for k in ("forward_one_loop", "backward_reduced") for d in (64, 128)}
    texts = {column.heading: column.text(table.rows[0]) for column in table.columns}
    assert texts["spills"] == "0 B"
    assert texts["architecture"] == "sm_80"
    assert texts["instructions"].endswith(" mma")


@pytest.mark.parametrize(
    ("capability", "architecture", "dtype"), [("8.6", "sm_89", "bfloat16"), ("7.5", "sm_75", "float16")]
)
def test_the_readers_gpu_is_shown_where_it_is_known(capability: str, architecture: str, dtype: str) -> None:
    record = SimpleNamespace(environment={"devices": [{"name": "a GPU", "capability": capability}]})
    found = tables.kernels(Results([{"record": None}, {"record": record}], Peaks(), "here"))
    assert {(row["architecture"], row["dtype"]) for row in found.rows} == {(architecture, dtype)}
    assert f"Shown: {architecture}" in found.caption


@pytest.mark.parametrize("environment", [{}, {"devices": []}, {"devices": [{"capability": None}]}, {"devices": "x"}])
def test_without_a_gpu_the_usual_ones_are_shown(environment: dict[str, Any]) -> None:
    found = tables.kernels(Results([{"record": SimpleNamespace(environment=environment)}], Peaks(), "here"))
    assert {row["architecture"] for row in found.rows} == set(kernel_table.SHOWN_ARCHITECTURES)


def test_a_change_of_the_figures_is_a_change_of_what_is_rendered():
    source = reach.source("stepbench.experiments.attention.tables")
    for file in ("figures.json", "figures-3.6.json"):
        assert any(name.endswith(file) for name in source), sorted(source)


def test_figures_of_tiles_that_were_tuned_since_are_told():
    rows, tiles = kernel_table.read()["rows"], kernel_table.read(kernel_table.TILES)
    shown = [row for row in rows if row["dtype"] == "bfloat16"]
    assert kernel_table.tuned_since(shown, tiles) == []
    for row in tiles["sm_90"]["rows"]:
        if row["head_dim"] == 64:
            row["forward"] = [64, 32, 4, 2]
    assert kernel_table.tuned_since(shown, tiles) == ["sm_90"]
    assert "have been tuned since" not in kernel_table.table().caption


def test_what_limits_each_kernel_is_shown_as_a_band():
    assert kernel_table.read()["band"] == kernel_table.BAND
    table = kernel_table.limits_table()
    kernels = ("forward", "forward_one_loop", "backward_keys", "backward_queries", "backward_fused", "backward_reduced")
    assert {(row["kernel"], row["head_dim"]) for row in table.rows} == {(k, d) for k in kernels for d in (64, 128)}
    for row in table.rows:
        parts = row["issue"] + sum(row[name] for name in kernel_table.WAITS)
        assert 0.98 < parts < 1.02
        texts = {column.heading: column.text(row) for column in table.columns}
        low, high = map(int, texts["TFLOP/s predicted at 16384"].split(" to "))
        assert low < row["predicted_16384_tflops"] < high
        assert texts["tensor"] == f"{row['tensor']:.0%}"


def test_what_was_tuned_stands_beside_what_was_predicted():
    figures, tiles = kernel_table.read(), kernel_table.read(kernel_table.TILES)
    row = next(row for row in figures["rows"] if "limits" in row and row["kernel"] == "forward")
    assert kernel_table.measured(row, tiles) == "–"
    for each in tiles["sm_90"]["rows"]:
        each["problem"] = {"context": 4096, "tokens": 16_384, "width": 2048}
        each["timed"] = {"forward": [[[16, 16, 4, 1], 1.0, None], [each["forward"], 0.002, 0.0021]]}
    # Two products of 2 · 4096² · 2048 FLOPs in each of four sequences, half of them masked: 0.275 TFLOP.
    assert kernel_table.measured(row, tiles) == "137 TFLOP/s (131 predicted) at 4096"


def test_the_products_of_a_kernel_are_those_that_its_prediction_counts():
    pytest.importorskip("triton")
    from stepbench.kernels.triton.limits import predict

    assert dict(predict.PRODUCTS) == kernel_table.PRODUCTS


@pytest.mark.parametrize(("version", "series"), [("3.6.0", "3.6"), ("3.7.1", "3.7"), ("3.9.0", "3.7"), (None, "3.7")])
def test_the_figures_are_those_of_the_triton_that_is_here(
    monkeypatch: pytest.MonkeyPatch, version: str | None, series: str
) -> None:
    def installed(_name: str) -> str:
        if version is None:
            raise kernel_table.importlib.metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(kernel_table.importlib.metadata, "version", installed)
    assert kernel_table.read()["triton"].startswith(series)
    assert kernel_table.read()["triton"] in kernel_table.limits_table().caption


def test_the_picture_shows_every_kernel_of_the_table():
    from stepbench.experiments.attention import figures

    drawn = figures.limits(None)
    labels = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert len(labels) == len(kernel_table.limits_table().rows) == 12
    assert "backward_keys 64" in labels
    assert {text.get_text() for text in drawn.legends[0].get_texts()} == {
        "instructions issue",
        *(f"wait: {name}" for name in kernel_table.WAITS),
    }
