"""What is above the peak, and parts that are larger than their whole, never stand without a mark."""

from __future__ import annotations

import pytest
from tests.reporting import synthetic, synthetic_inside
from tests.reporting.conftest import SMALL_GRIDS, markdown, results

from stepbench.experiments import experiment as experiments
from stepbench.reporting import sense
from stepbench.reporting.marks import Mark
from stepbench.reporting.peaks import Peaks, Rate
from stepbench.reporting.statistics import summarize

RANKS = {"data_parallel": [{"size": ["nano"], "context": [64], "batch": [1], "strategy": ["naive"]}]}
STEP = {"end_to_end": [{"size": ["micro"], "context": [64], "precision": ["bf16"]}]}
PLAUSIBLE = {
    "forward_s": [[0.010] * 3, [0.011] * 3],
    "backward_s": [[0.020] * 3, [0.020] * 3],
    "synchronization_s": [[0.004] * 3, [0.004] * 3],
    "optimizer_s": [[0.005] * 3, [0.004] * 3],
    "step_s": [[0.039] * 3, [0.039] * 3],
    "without_communication_s": [[0.035] * 3, [0.035] * 3],
    "comm_wait_s": [[0.004] * 3, [0.003] * 3],
}


def group_of(tmp_path, grid, name, **fields):
    bench = synthetic.bench(tmp_path, **grid)
    for cell in bench.grid(name):
        synthetic.write(bench, name, cell, **fields)
    return results(bench, name).groups()[0]


def found(group, peaks=None):
    return [str(mark) for mark in sense.find(group, peaks or Peaks())]


# -- peaks -------------------------------------------------------------------------------------------------------------


def test_a_product_in_a_nanosecond_is_impossible_and_no_peak(tmp_path) -> None:
    bench = synthetic.bench(tmp_path, **SMALL_GRIDS)
    synthetic.fill(bench)
    honest = results(bench, "ceilings").peaks.flops_per_s("fp32")
    (cell, *_) = bench.grid("ceilings")
    fields = synthetic.ceilings(bench, cell, synthetic.np.random.default_rng(0), 0.01)
    fields["samples"]["matmul_2048_s"] = [1e-9] * 7
    synthetic.write(bench, "ceilings", cell, **fields)
    lied = results(bench, "ceilings")
    rates = experiments.load("ceilings").tabulate(lied)["rates"]
    (row,) = [row for row in rates.rows if row["extent"] == 2048 and row["dtype"] == "fp32"]
    assert row["quality"] == "D"
    assert "impossible (matmul_2048 took less than a function call can, matmul 2048 " in markdown(rates)
    # What is left of it is no peak, so nothing else looks slow beside it.
    assert lied.peaks.flops_per_s("fp32") < honest
    assert lied.peaks.measured["fp32"].extent == 1024


def test_a_product_above_the_vendors_figure_is_impossible(tmp_path) -> None:
    grid = {"ceilings": [{"operation": ["matmul"], "dtype": ["bf16"]}]}
    facts = {**synthetic.FACTS, "device": "cuda", "device_name": "NVIDIA H200"}
    samples, scalars = {"matmul_8192_s": [1e-3] * 7}, {"matmul_8192_flops": 2 * 8192**3}
    (mark,) = found(group_of(tmp_path, grid, "ceilings", samples=samples, scalars=scalars, environment=facts))
    assert mark.startswith("impossible (matmul 8192 1.06")
    slower = {"matmul_8192_s": [1.3e-3] * 7}
    assert found(group_of(tmp_path, grid, "ceilings", samples=slower, scalars=scalars, environment=facts)) == []


def test_an_operator_above_every_measured_peak_is_impossible(tmp_path) -> None:
    grid = {"attention": [{"implementation": ["naive"], "seq": [128], "head_dim": [64]}]}
    samples, scalars = {"forward_s": [0.01] * 7, "backward_s": [0.02] * 7}, {"forward_flops": 10**9}
    group = group_of(tmp_path, grid, "attention", samples=samples, scalars=scalars)
    rates = {dtype: Rate("matmul", dtype, 1024, rate, summarize([[1.0]])) for dtype, rate in PEAKS.items()}
    assert found(group, Peaks(measured=rates)) == ["impossible (forward 1.25× the measured peak)"]
    assert found(group, Peaks(measured={**rates, "bf16": Rate("matmul", "bf16", 1, 1e11, summarize([[1.0]]))})) == []


PEAKS = {"fp32": 4e10, "bf16": 8e10}


@pytest.mark.parametrize(("seconds", "marked"), [(0.001, True), (0.1, False)])
def test_an_optimizer_faster_than_memory_is_impossible(tmp_path, seconds: float, marked: bool) -> None:
    samples = {"forward_s": [0.1] * 7, "optimizer_s": [seconds] * 7, "step_s": [0.1 + seconds] * 7}
    protocol = {"optimizer": "AdamW, torch's default implementation"}
    fields = {"samples": samples, "scalars": {"parameters": 10**8}, "protocol": protocol}
    group = group_of(tmp_path, STEP, "end_to_end", **fields)
    copy = Rate("copy", "fp32", 128, 2 * 128 * 2**20, summarize([[0.01]]))
    assert bool(found(group, Peaks(copy=copy))) == marked
    # What a cache may hold is not held against memory.
    small = group_of(tmp_path / "small", STEP, "end_to_end", **{**fields, "scalars": {"parameters": 10**6}})
    assert found(small, Peaks(copy=copy)) == []


# -- parts and wholes --------------------------------------------------------------------------------------------------


def ranks(tmp_path, **samples):
    return group_of(tmp_path, RANKS, "data_parallel", samples={**PLAUSIBLE, **samples})


def test_parts_on_ranks_add_up_to_the_slowest_ranks_step(tmp_path) -> None:
    assert found(ranks(tmp_path)) == []
    (mark,) = sense.find(ranks(tmp_path, backward_s=[[0.09] * 3, [0.02] * 3]), Peaks())
    assert mark == Mark("parts and whole differ", "the phases' sum is 2.79× the step")


def test_a_step_cannot_be_shorter_than_its_computation_or_its_waiting(tmp_path) -> None:
    shorter = found(ranks(tmp_path, without_communication_s=[[0.06] * 3, [0.05] * 3]))
    assert shorter == ["parts and whole differ (the step is 0.650× the step without communication)"]
    assert found(ranks(tmp_path, comm_wait_s=[[0.01] * 3, [0.05] * 3])) == [
        "impossible (the exposed wait is 1.28× the step)"
    ]


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["peak_memory_bytes", "peak_host_bytes"])
def test_more_memory_than_there_is_is_impossible(tmp_path, key: str) -> None:
    samples = {"step_s": [0.1] * 7}
    (mark,) = found(group_of(tmp_path, STEP, "end_to_end", samples=samples, scalars={key: 2**35}))
    assert mark == "impossible (32.0 GiB of memory, the machine has 16.0 GiB)"
    assert found(group_of(tmp_path, STEP, "end_to_end", samples=samples, scalars={key: 2**33})) == []


def test_the_table_of_memory_marks_what_no_device_has(tmp_path) -> None:
    grid = {"memory": [{"source": ["measured"], "size": ["nano"], "context": [128]}]}
    bench = synthetic.bench(tmp_path, **grid)
    synthetic_inside.fill(bench, "memory")
    (cell,) = bench.grid("memory")
    fields = synthetic_inside.memory(bench, cell, synthetic.np.random.default_rng(0), 0.01)
    fields["scalars"]["peak_memory_bytes"] = 2**35
    synthetic.write(bench, "memory", cell, **fields)
    peaks, *_ = experiments.load("memory").tabulate(results(bench, "memory")).values()
    assert "D: impossible (measured 32.0 GiB of memory, the machine has 16.0 GiB)" in markdown(peaks)


def test_what_is_predicted_may_be_more_than_there_is(tmp_path) -> None:
    grid = {"memory": [{"source": ["predicted"], "size": ["xl"], "context": [128]}]}
    assert found(group_of(tmp_path, grid, "memory", scalars={"peak_memory_bytes": 2**40})) == []


# -- regions and results -----------------------------------------------------------------------------------------------


def test_a_region_that_is_short_for_its_clock_is_marked(tmp_path) -> None:
    short = {"step_s": [2e-5] * 7}
    assert found(group_of(tmp_path, STEP, "end_to_end", samples=short)) == ["short (step 20.0 µs)"]
    events = {"clock": "CUDA events"}
    assert found(group_of(tmp_path, STEP, "end_to_end", samples=short, protocol=events)) == []
    repeated = {"loops": {"matmul_256": 64}}
    grid = {"ceilings": [{"operation": ["matmul"]}]}
    fields = {"samples": {"matmul_256_s": [2e-5] * 7}, "scalars": {"matmul_256_flops": 2 * 256**3}}
    assert found(group_of(tmp_path, grid, "ceilings", protocol=repeated, **fields)) == []


def test_a_wrong_result_is_marked_and_has_no_time(tmp_path) -> None:
    reason = "o must be within 2 × 1e-07 of float64, got an error of 0.5"
    group = group_of(tmp_path, STEP, "end_to_end", status="error", kind="wrong_result", reason=reason)
    assert found(group) == ["wrong"]
    assert group.summary("step_s") is None
    # A record from before reasons had a kind.
    older = group_of(tmp_path / "older", STEP, "end_to_end", status="error", reason=f"ArithmeticError: {reason}")
    assert found(older) == ["wrong"]
    other = group_of(tmp_path, STEP, "end_to_end", status="error", kind="exception", reason=f"ValueError: {reason}")
    assert found(other) == []


def test_an_equivalence_check_beyond_its_tolerance_is_marked(tmp_path) -> None:
    proof = {"equivalence_difference_ratio": 3e-3, "equivalence_tolerance_ratio": 1e-4}
    group = group_of(tmp_path, RANKS, "data_parallel", samples=PLAUSIBLE, scalars=proof)
    assert found(group) == ["wrong (error 3.00×10⁻³, tolerance 1.00×10⁻⁴)"]
