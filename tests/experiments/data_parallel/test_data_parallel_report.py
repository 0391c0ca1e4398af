"""Tables and findings of data parallelism, made from records that nobody measured."""

import operator
from pathlib import Path

import pytest
from tests.reporting import synthetic, synthetic_on_ranks
from tests.reporting.conftest import STEP, first_table, results, sentences

from stepbench.experiments import experiment as experiments
from stepbench.experiments.data_parallel import exposure
from stepbench.pipeline.bench import Bench
from stepbench.reporting import points
from stepbench.reporting.message_fits import Fit


def test_exposed_is_measured_in_two_ways(on_ranks: Bench) -> None:
    rows = {(row["strategy"], row["bucket_mib"]): row for row in first_table(on_ranks, "data_parallel").rows}
    assert rows["naive", None]["comm_wait_median_s"] == pytest.approx(0.030, rel=0.05)
    assert rows["naive", None]["exposed_median_s"] == pytest.approx(0.030, rel=0.1)
    assert rows["overlapped", None]["comm_wait_median_s"] == pytest.approx(0.012, rel=0.05)
    assert rows["overlapped", None]["exposed_median_s"] == pytest.approx(0.018, rel=0.1)
    assert rows["torch_ddp", 5]["comm_wait_median_s"] is None


def test_sentences_rank_the_strategies_and_name_a_disagreement(on_ranks: Bench) -> None:
    text = sentences(on_ranks, "data_parallel")
    assert "Exposed communication as a share of the step: naive 46 %, flat 36 %, overlapped 34 %, bucketed" in text
    assert "differ by more than 10 % of the step: overlapped (6" in text
    assert "more by the difference of steps)" in text
    assert "Of the bucket sizes 1 MiB and 5 MiB, " in text


def test_a_target_is_met_not_met_or_inconclusive(tmp_path: Path) -> None:
    grid = [STEP | {"strategy": ["bucketed"], "bucket_mib": [1, 2, 3]}]
    bench = synthetic.bench(tmp_path, data_parallel=grid)
    for cell, factor in zip(bench.grid("data_parallel"), (0.9, 1.02, 1.2), strict=True):
        content = synthetic_on_ranks.data_parallel(bench, cell, synthetic.np.random.default_rng(0), 0.01)
        content["samples"]["paired_s"] = [[factor * value for value in rank] for rank in content["samples"]["beside_s"]]
        content["samples"]["paired_s"] = [
            [value * (1 + 0.01 * (-1) ** step) for step, value in enumerate(rank)]
            for rank in content["samples"]["paired_s"]
        ]
        synthetic.write(bench, "data_parallel", cell, **content)
    table = experiments.load("data_parallel").tabulate(results(bench, "data_parallel"))["beside"]
    assert [row["verdict"] for row in table.rows] == ["met", "inconclusive", "not met"]
    text = sentences(bench, "data_parallel")
    assert "(nano, bucket MiB 1); target ≤ 1.02×: met, in one process." in text
    assert "target ≤ 1.02×: inconclusive (the interval contains the target), in one process." in text


FIT = Fit("all_reduce", "gloo", 2, latency_s=1e-4, bytes_per_s=1e9, residual_ratio=0.0, messages=3)


def test_one_bucket_exposes_all_and_a_fast_wire_only_the_last() -> None:
    payload = 10_000_000
    assert exposure.exposed_by_fit(FIT, 0.02, payload, payload) == pytest.approx(FIT.seconds(payload))
    assert exposure.exposed_by_fit(FIT, 10.0, payload, 1_000_000) == pytest.approx(FIT.seconds(1_000_000))
    slow = exposure.exposed_by_fit(FIT, 0.001, payload, 1_000_000)
    assert slow == pytest.approx(0.001 / 10 + 10 * 1e-4 + payload / 1e9 - 0.001)


def test_the_best_bucket_is_better_than_its_neighbours() -> None:
    payload, backward_s = 14_000_000, 0.02
    size, left_s = exposure.best_bucket(FIT, backward_s, payload)
    assert exposure.SMALLEST_BYTES < size < payload
    assert left_s == exposure.exposed_by_fit(FIT, backward_s, payload, size)
    for factor in (0.5, 0.8, 1.25, 2.0):
        assert left_s <= exposure.exposed_by_fit(FIT, backward_s, payload, min(factor * size, payload))


def test_differences_are_taken_step_by_step(on_ranks: Bench) -> None:
    group = next(g for g in results(on_ranks, "data_parallel").groups() if g.point["strategy"] == "flat")
    record = group.records[0]
    steps = zip(*(points.processes([record], key)[0] for key in ("step_s", "without_communication_s")), strict=True)
    expected = sorted(one - other for one, other in steps)
    found = group.stepwise(operator.sub, "step_s", "without_communication_s")
    assert found is not None
    assert found.median == pytest.approx(expected[len(expected) // 2])
