from __future__ import annotations

import pytest
from tests.reporting import synthetic
from tests.reporting.conftest import markdown, results

from stepbench.reporting import comparisons, findings
from stepbench.reporting.statistics import Verdict

REPLICATES = list(range(5))
GRID = {
    "end_to_end": [
        {"size": ["nano"], "context": [64], "precision": ["fp32", "bf16", "fp16"], "replicate": REPLICATES},
        {"size": ["nano"], "context": [128], "precision": ["fp32", "bf16"]},
        {"size": ["micro"], "context": [64], "precision": ["bf16"]},
    ]
}


@pytest.fixture
def bench(tmp_path):
    """bf16 is twice as fast at context 64, fp16 as fast as fp32; at context 128 there is one process a side."""
    bench = synthetic.bench(tmp_path, **GRID)
    for cell in bench.grid("end_to_end"):
        factor = {"fp32": 1.0, "bf16": 0.5, "fp16": 1.0}[cell.precision]
        times = [factor * (1 + 0.003 * cell.replicate) * (1 + 0.001 * step) for step in range(7)]
        synthetic.write(bench, "end_to_end", cell, samples={"step_s": times})
    return bench


def pairs(bench):
    return comparisons.pairs(results(bench, "end_to_end"), "precision", "fp32")


def test_each_point_is_paired_with_the_one_that_differs_in_one_axis(bench):
    found = {(pair.other.point["context"], pair.value): pair for pair in pairs(bench)}
    assert set(found) == {(64, "bf16"), (64, "fp16"), (128, "bf16")}  # micro has no baseline in the grid
    assert found[64, "bf16"].comparison.verdict is Verdict.FASTER
    assert found[64, "bf16"].comparison.ratio == pytest.approx(2.0)
    assert found[64, "fp16"].comparison.verdict is Verdict.SAME
    assert found[128, "bf16"].comparison.verdict is Verdict.UNCLEAR
    assert found[64, "bf16"].processes == 5


def table(found):
    return comparisons.table(found, title="Precision", caption="C.", empty="Nothing is compared.")


def test_the_table_has_ratio_interval_verdict_and_the_records_of_both_sides(bench):
    shown = table(pairs(bench))
    assert [row["verdict"] for row in shown.rows] == ["FASTER", "SAME", "UNCLEAR"]
    line = markdown(shown).splitlines()[6]
    assert "2.000× [1.980, 2.020]" in line
    assert "5 / 5" in line
    assert line.count("(../../end_to_end/") == 10
    assert "fp32 [0]" in line
    assert "bf16 [0]" in line


def test_a_side_without_numbers_keeps_its_row_with_the_reason(bench):
    cell = next(c for c in bench.grid("end_to_end") if (c.context, c.precision) == (128, "bf16"))
    synthetic.write(bench, "end_to_end", cell, status="unsupported", reason="no bf16 | here")
    row = next(row for row in table(pairs(bench)).rows if row["context"] == 128)
    assert (row["speedup_ratio"], row["verdict"]) == (None, None)
    assert row["baseline_median_s"] is not None
    assert r"other unsupported: no bf16 \| here" in markdown(table(pairs(bench)))


def test_a_stale_side_gives_no_verdict(bench):
    for cell in bench.grid("end_to_end"):
        if (cell.context, cell.precision) == (64, "fp32"):
            synthetic.write(bench, "end_to_end", cell, samples={"step_s": [1.0]}, fingerprint={})
    found = pairs(bench)
    assert [pair.comparison for pair in found if pair.other.point["context"] == 64] == [None, None]
    assert "baseline stale" in markdown(table(found))
    assert "cannot be compared" in str(findings.comparison(found)[1])


def test_a_grid_that_compares_nothing_gives_a_sentence(tmp_path):
    bench = synthetic.bench(tmp_path, end_to_end=[{"size": ["nano"], "context": [64]}])
    assert pairs(bench) == []
    assert "Nothing is compared." in markdown(table([]))
    assert findings.comparison([]) == []


def test_findings_are_worded_by_the_verdict(bench):
    both, same = map(str, findings.comparison(pairs(bench)))
    assert both == "bf16 against fp32, 2 comparisons: faster in 1 (2.00×), no verdict in 1 (2.00×)."
    assert same.startswith("fp16 and fp32 show no difference (nano, context 64, batch 4, train step): 1.000×")
    assert "would have been detected" in same


def test_slower_and_unclear_are_worded_too(bench):
    for cell in bench.grid("end_to_end"):
        if cell.precision == "fp16":
            synthetic.write(bench, "end_to_end", cell, samples={"step_s": [3.0 + 0.01 * cell.replicate] * 7})
        if cell.precision == "bf16" and cell.context == 64:
            synthetic.write(bench, "end_to_end", cell, status="error", reason="ValueError: no")
    unclear, slower = map(str, findings.comparison(pairs(bench)))
    assert slower.startswith("fp16 runs at 0.33")
    assert slower.endswith("the speed of fp32 (nano, context 64, batch 4, train step).")
    assert unclear == "bf16 against fp32, 2 comparisons: no verdict in 1 (2.00×), 1 without numbers."
