from __future__ import annotations

from tests.reporting import synthetic
from tests.reporting.conftest import markdown, results

from stepbench.experiments.end_to_end import passes_table

VALUES = ("forward", "forward_backward", "train_step")


def table(bench):
    groups = results(bench, "end_to_end").groups()
    return passes_table.table(groups, title="T", caption="C.", empty="No passes.")


def bench_of(tmp_path, passes):
    return synthetic.bench(tmp_path, end_to_end=[{"size": ["nano"], "context": [64], "passes": passes}])


def test_passes_stand_side_by_side_with_ratios(tmp_path):
    bench = bench_of(tmp_path, list(VALUES))
    for cell, step_s in zip(bench.grid("end_to_end"), (0.01, 0.03, 0.036), strict=True):
        synthetic.write(bench, "end_to_end", cell, samples={"step_s": [step_s] * 7})
    (row,) = table(bench).rows
    assert row["forward_median_s"] == 0.01
    assert round(row["forward_backward_over_forward_ratio"], 6) == 3.0
    assert round(row["train_step_over_forward_backward_ratio"], 6) == 1.2
    text = markdown(table(bench))
    assert "| forward (ms) | forward + backward (ms) | over forward |" in text
    assert text.count("json](../../end_to_end/") == 3


def test_a_pass_without_numbers_shows_why_in_its_place(tmp_path):
    bench = bench_of(tmp_path, list(VALUES))
    forward, both, _ = bench.grid("end_to_end")
    synthetic.write(bench, "end_to_end", forward, samples={"step_s": [0.01] * 7})
    synthetic.write(bench, "end_to_end", both, status="oom", reason="MemoryError: 3 GiB")
    text = markdown(table(bench))
    assert "oom: MemoryError: 3 GiB" in text
    assert "not measured" in text


def test_a_single_pass_gives_a_sentence(tmp_path):
    assert "No passes." in markdown(table(bench_of(tmp_path, ["forward"])))
