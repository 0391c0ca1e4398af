"""What is said about warming up branches on what came out."""

from __future__ import annotations

from tests.reporting import synthetic
from tests.reporting.conftest import markdown, results

from stepbench.experiments.warmup import findings
from stepbench.experiments.warmup import tables as warmup_tables
from stepbench.reporting import steps


def warmup(tmp_path, first):
    bench = synthetic.bench(tmp_path, warmup=[{"size": ["nano"], "warmup": [0, 2, 10]}])
    for cell in bench.grid("warmup"):
        run = [first, 1.5, *([1.0] * 20)]
        samples = {"forward_s": run[cell.warmup :][:7], "warmup_forward_s": run[: cell.warmup], "step_s": [1.0] * 7}
        synthetic.write(bench, "warmup", cell, samples=samples)
    return [*map(str, findings.find(results(bench, "warmup")))]


def test_warm_up_says_what_the_first_step_costs_and_when_it_settles(tmp_path):
    first, without, settled = warmup(tmp_path, 8.0)
    assert first == "The first step of nano takes 8.00 s, 8.00× a settled one. One process each: no verdict."
    assert without.startswith("Without warm-up the mean step of nano is 2.07× that after 10")
    assert settled.startswith("From 2 warm-up steps on the mean step of nano stays within 5 % of that after 10.")
    assert settled.endswith("One process each: no verdict.")


def test_a_cell_that_never_settles_says_so(tmp_path):
    bench = synthetic.bench(tmp_path, warmup=[{"size": ["nano"], "warmup": [0, 10]}])
    for cell, value in zip(bench.grid("warmup"), (2.0, 1.0), strict=True):
        synthetic.write(bench, "warmup", cell, samples={"forward_s": [value] * 7})
    assert "10 may not be enough either" in [*map(str, findings.find(results(bench, "warmup")))][-1]


def test_one_count_alone_says_nothing(tmp_path):
    bench = synthetic.bench(tmp_path, warmup=[{"size": ["nano"], "warmup": [0]}])
    synthetic.fill(bench)
    assert [*map(str, findings.find(results(bench, "warmup")))] == []


def test_warm_up_looks_at_the_sum_of_phases(tmp_path):
    bench = synthetic.bench(tmp_path, warmup=[{"size": ["nano"], "warmup": [0, 5]}])
    synthetic.fill(bench)
    whole = results(bench, "warmup")
    found = whole.groups()
    sums = steps.phase_sums(found[0])[0]
    record = found[0].records[0]
    assert sums[0] == sum(record.samples[f"{phase}_s"][0] for phase in steps.PHASES)
    shown = warmup_tables.warmup(whole)
    assert shown.rows[0]["sum_cv_ratio"] > 0.5 > 0.05 > shown.rows[1]["sum_cv_ratio"]
    assert "outliers" in [mark.kind for mark in shown.rows[0]["warnings"]]
    assert "| nano | 0 |" in markdown(shown)
