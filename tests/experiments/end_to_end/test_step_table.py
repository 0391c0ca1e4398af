from __future__ import annotations

import dataclasses

import pytest
from tests.reporting import synthetic
from tests.reporting.conftest import markdown, results

from stepbench.experiments.end_to_end import step_table
from stepbench.models import costs
from stepbench.models.sizes import ModelSize
from stepbench.reporting import marks, steps
from stepbench.reporting.peaks import Peaks

GRID = {"end_to_end": [{"size": ["nano"], "context": [64], "passes": ["train_step", "forward"]}]}
SAMPLES = {
    "forward_s": [0.010] * 7,
    "backward_s": [0.020] * 7,
    "optimizer_s": [0.005] * 7,
    "step_s": [0.035] * 7,
}
SCALARS = {
    "parameters": 3_600_000,
    "tokens_per_step": 256,
    "forward_flops": 10**9,
    "backward_flops": 2 * 10**9,
    "peak_memory_bytes": None,
    "peak_host_bytes": 2**30,
}


@pytest.fixture
def bench(tmp_path):
    bench = synthetic.bench(tmp_path, **GRID)
    train, forward = bench.grid("end_to_end")
    synthetic.write(bench, "end_to_end", train, samples=SAMPLES, scalars=SCALARS)
    only = {"forward_s": [0.010] * 7, "step_s": [0.010] * 7}
    synthetic.write(bench, "end_to_end", forward, samples=only, scalars=SCALARS)
    return bench


def groups(bench):
    return results(bench, "end_to_end").groups()


def peaks(flops_per_s=None, vendor=None):
    found = Peaks(vendor_flops_per_s={"fp32": vendor} if vendor else {})
    if flops_per_s:
        from stepbench.reporting.peaks import Rate
        from stepbench.reporting.statistics import summarize

        found = Peaks(
            measured={"fp32": Rate("matmul", "fp32", 1024, flops_per_s, summarize([[1.0]]))},
            vendor_flops_per_s=found.vendor_flops_per_s,
        )
    return found


def measured_against(bench, found):
    """Return the training step of a machine with these peaks."""
    return dataclasses.replace(results(bench, "end_to_end"), peaks=found).groups()[0]


def warnings_of(bench, found):
    return step_table.warnings(measured_against(bench, found))


def test_a_row_holds_what_the_field_tabulates(bench):
    row = step_table.row(groups(bench)[0], peaks(1e12, 2e12))
    assert row["forward_mean_s"] == pytest.approx(0.010)
    assert row["backward_forward_ratio"] == pytest.approx(2.0)
    assert row["tokens_per_s"] == pytest.approx(256 / 0.035)
    assert row["mfu_measured_ratio"] == pytest.approx(3e9 / 0.035 / 1e12)
    assert row["mfu_vendor_ratio"] == pytest.approx(3e9 / 0.035 / 2e12)
    assert (row["status"], row["warnings"], row["samples"], row["processes"]) == ("ok", (), 7, 1)


def test_the_energy_of_a_step_and_a_token_has_columns_where_a_record_has_it(bench):
    shown = {"title": "Steps", "caption": "All of them."}
    assert "energy" not in markdown(step_table.table(groups(bench), Peaks(), **shown, empty="")).lower()
    train = bench.grid("end_to_end")[0]
    synthetic.write(bench, "end_to_end", train, samples=SAMPLES, scalars=SCALARS | {"step_energy_joules": 12.8})
    found = step_table.table(groups(bench), Peaks(), **shown, empty="")
    assert [(row["energy_joules"], row["token_energy_joules"]) for row in found.rows] == [(12.8, 0.05), (None, None)]
    text = markdown(found)
    assert "12.8 J" in text
    assert "50.0 mJ" in text
    assert steps.ENERGY in text


def test_a_forward_pass_alone_counts_only_its_own_flops(bench):
    train, forward = groups(bench)
    assert (steps.flops(train), steps.flops(forward)) == (3 * 10**9, 10**9)


def test_the_formula_in_words_is_the_one_in_costs():
    size = ModelSize(d_model=128, d_ff=512, layers=4, heads=4)
    tokens, context, vocabulary = 256, 64, 10_000
    by_words = 2 * tokens * (4 * (4 * 128**2 + 3 * 128 * 512) + vocabulary * 128) + 4 * 4 * tokens * context * 128
    assert by_words == costs.forward_flops(size, vocabulary=vocabulary, batch=4, context=context)
    assert costs.backward_flops(size, vocabulary=vocabulary, batch=4, context=context) == 2 * by_words
    assert "2·tokens·(layers·(4·d_model² + 3·d_model·d_ff) + vocabulary·d_model)" in steps.FLOP_FORMULA


def test_faster_than_the_measured_peak_is_marked_impossible(bench):
    found = warnings_of(bench, peaks(5e10))
    assert [mark.kind for mark in found] == ["impossible"]
    assert "impossible (1.71× the measured peak)" in markdown(table([measured_against(bench, peaks(5e10))]))
    assert warnings_of(bench, peaks(9.6e10)) == []  # within the peak's own error
    of_a_phase = warnings_of(bench, peaks(9e10))
    assert marks.text(of_a_phase) == "impossible (forward 1.11× the measured peak, backward 1.11× the measured peak)"


@pytest.mark.parametrize("step_s", [0.01, 0.07])
def test_phases_that_do_not_add_up_to_the_step_are_marked(bench, step_s):
    train, _ = bench.grid("end_to_end")
    synthetic.write(bench, "end_to_end", train, samples=SAMPLES | {"step_s": [step_s] * 7}, scalars=SCALARS)
    assert "parts and whole differ" in [mark.kind for mark in warnings_of(bench, Peaks())]


def test_a_noisy_phase_is_marked_with_its_name(bench):
    train, _ = bench.grid("end_to_end")
    noisy = SAMPLES | {"backward_s": [0.02, 0.03, 0.02, 0.01, 0.02, 0.03, 0.01]}
    synthetic.write(bench, "end_to_end", train, samples=noisy, scalars=SCALARS)
    group = groups(bench)[0]
    assert marks.text(step_table.warnings(group)) == "noisy (backward CV 41 %)"
    assert "noisy (backward CV 41 %)" in markdown(table([group], wide=True))


def table(found, **more):
    return step_table.table(found, Peaks(), title="T", caption="C.", empty="No steps.", **more)


def test_the_wide_table_shows_both_statistics(bench):
    text = markdown(table(groups(bench)[:1], wide=True))
    assert "nano<br>3.6 M" in text
    assert "| 10.0 [10.0, 10.0]<br>10.0" in text
    assert "(0.0" in text
    assert "peak host memory" in text
    assert "MFU of measured peak" in text


def test_a_failed_cell_keeps_its_row(bench):
    train, _ = bench.grid("end_to_end")
    synthetic.write(bench, "end_to_end", train, status="oom", reason="OutOfMemoryError: tried 2 GiB")
    lines = markdown(table(groups(bench))).splitlines()
    assert "oom: OutOfMemoryError: tried 2 GiB" in lines[-2]
    assert "[json](" in lines[-2]
    assert "10.00" in lines[-1] or "10.0" in lines[-1]


def test_a_table_of_nothing_is_a_sentence():
    assert "No steps." in markdown(table([]))
