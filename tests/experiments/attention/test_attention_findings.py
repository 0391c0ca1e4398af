"""What is said of attention operators branches on what came out."""

from __future__ import annotations

from tests.reporting import synthetic
from tests.reporting.conftest import results

from stepbench.experiments.attention import figures, findings, tables

GRID = {"attention": [{"implementation": ["naive", "tiled", "triton"], "seq": [128, 512], "head_dim": [64]}]}


def bench_with(tmp_path, **fields):
    """A bench on which `fields[implementation](cell)` gives what is written for a cell, in place of the usual."""
    bench = synthetic.bench(tmp_path, **GRID)
    synthetic.fill(bench, spread=0.0)
    for cell in bench.grid("attention"):
        if cell.implementation in fields:
            synthetic.write(bench, "attention", cell, **fields[cell.implementation](cell))
    return results(bench, "attention")


def out_of_memory(_cell):
    return {"status": "oom", "reason": "OutOfMemoryError: no"}


def test_the_fastest_at_the_longest_length_is_named(tmp_path):
    found = [*map(str, findings.find(bench_with(tmp_path)))]
    assert found[0].startswith("At 512 tokens naive has the fastest forward pass (")
    assert "; tiled takes 5.00× as long." in found[0]
    assert found[1].startswith("At 512 tokens naive has the fastest backward pass (")


def test_what_is_kept_for_the_backward_pass_is_compared(tmp_path):
    (said,) = [each for each in [*map(str, findings.find(bench_with(tmp_path)))] if "for the backward pass" in each]
    kept = 512 * 4 * (4 * 64 + 1)
    assert f"At 512 tokens naive saves {(kept + 512 * 512 * 4) / 2**20:.2f} MiB" in said
    assert f"as much as tiled ({kept / 2**10:.0f} KiB)" in said


def test_where_memory_ends_is_told_with_its_arithmetic(tmp_path):
    found = [*map(str, findings.find(bench_with(tmp_path, naive=out_of_memory)))]
    said = next(each for each in found if "runs out of memory" in each)
    assert said == (
        "naive runs out of memory from 128 tokens on: one matrix of scores takes 1 × 1 × 128² elements, 64.0 KiB, "
        "and the device has 16.0 GiB."
    )


def test_nothing_measured_says_nothing_that_needs_numbers(tmp_path):
    assert [*map(str, findings.find(results(synthetic.bench(tmp_path, **GRID), "attention")))] == []


def test_a_row_has_rates_and_errors_in_its_table(tmp_path):
    table = tables.attention(bench_with(tmp_path))
    row = next(row for row in table.rows if (row["implementation"], row["seq"]) == ("naive", 512))
    assert row["forward_flops_per_s"] == row["forward_flops_per_s"]
    assert row["forward_flops_per_s"] * row["forward_median_s"] == 2 * 512**2 * 64
    assert (row["o_error"], row["gradients_plain_error"]) == (1e-6, 2e-6)
    missing = next(row for row in table.rows if row["implementation"] == "triton")
    assert (missing["status"], missing["forward_median_s"]) == ("unsupported", None)


def test_a_time_of_nothing_has_no_rate_and_costs_no_figure(tmp_path):
    """Two events may stand closer together than a device tells."""

    def in_no_time(_cell):
        samples = {f"{each}_s": [0.0] * 7 for each in ("forward", "backward", "forward_backward")}
        return {"samples": samples, "scalars": {f"{each}_flops": 10**6 for each in ("forward", "backward")}}

    found = bench_with(tmp_path, naive=in_no_time)
    for draw in (figures.latency, figures.rate):
        assert len(draw(found).axes) == 2
    rows = {(row["implementation"], row["seq"]): row for row in tables.attention(found).rows}
    assert rows["naive", 128]["forward_flops_per_s"] is None
    assert rows["tiled", 128]["forward_flops_per_s"] > 0
    assert findings.find(found.sound()) == []
