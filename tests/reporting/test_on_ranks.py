"""Tables, figures and sentences of the experiments on several ranks, made from records that nobody measured."""

import math
from pathlib import Path
from typing import Any

import pytest
from tests.reporting import synthetic, synthetic_on_ranks

from stepbench.experiments import experiment as experiments
from stepbench.experiments.data_parallel import exposure, projection
from stepbench.experiments.data_parallel.projection import Work
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States
from stepbench.reporting import by_rank, findings, frames, message_fits, network, tables
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import Fit
from stepbench.reporting.network import Link, Network

NAMES = ("collectives", "data_parallel", "optimizer_sharding", "fsdp")
STEP: dict[str, Any] = {"size": ["nano"], "context": [64], "batch": [1]}
GRIDS: dict[str, list[dict[str, Any]]] = {
    "collectives": [
        {
            "operation": ["all_reduce"],
            "backend": ["gloo"],
            "ranks": [2],
            "payload_bytes": [4096, 2**20, 2**24],
        },
        {"operation": ["broadcast"], "backend": ["gloo"], "ranks": [2], "payload_bytes": [2**24]},
    ],
    "data_parallel": [
        STEP | {"strategy": ["none", "naive", "flat", "overlapped"]},
        STEP | {"strategy": ["bucketed"], "bucket_mib": [1, 5]},
        STEP | {"strategy": ["torch_ddp"], "bucket_mib": [5]},
    ],
    "optimizer_sharding": [
        STEP | {"source": ["measured"], "variant": ["replicated", "sharded_broadcast", "torch_zero"]},
        STEP | {"source": ["predicted"], "size": ["xl"], "variant": ["replicated", "sharded_broadcast"]},
    ],
    "fsdp": [STEP | {"source": ["measured"], "variant": ["fsdp", "torch_fsdp2"]}],
}


def results(bench: Bench, name: str) -> Results:
    return frames.load(States(bench), experiments.load(name))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = synthetic.bench(tmp_path_factory.mktemp("ranks"), **GRIDS)
    synthetic_on_ranks.fill(made)
    return made


def text_of(bench: Bench, name: str) -> str:
    return "\n".join(experiments.load(name).find(results(bench, name)))


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_declared_is_made(bench: Bench, name: str) -> None:
    experiment, found = experiments.load(name), results(bench, name)
    made = experiment.tabulate(found)
    assert tuple(table.name for table in made) == experiment.table_names
    assert tuple(experiment.plot(found)) == experiment.figure_names
    assert all(table.rows for table in made)
    assert all("| None" not in tables.markdown(table) for table in made)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_measured_is_said_and_not_drawn(tmp_path: Path, name: str) -> None:
    experiment = experiments.load(name)
    empty = results(synthetic.bench(tmp_path, **GRIDS), name)
    assert experiment.find(empty) == []
    assert all(str(figure.get_label()).startswith(("No ", "There is ")) for figure in experiment.plot(empty).values())
    assert all(
        "– |" in text or "There is no" in text or "No " in text
        for text in map(tables.markdown, experiment.tabulate(empty))
    )


# -- collectives -------------------------------------------------------------------------------------------------------


def test_latency_and_bandwidth_are_found_again() -> None:
    sizes = (4096, 2**20, 2**24, 2**28)
    latency, rate, residual = message_fits.fit([(size, 2e-5 + size / 3e9) for size in sizes])
    assert latency == pytest.approx(2e-5)
    assert rate == pytest.approx(3e9)
    assert residual == pytest.approx(0, abs=1e-9)


def test_a_fit_says_how_far_it_is_off() -> None:
    points = [(4096, 1e-4), (2**20, 2e-3), (2**24, 1e-2)]
    latency, rate, residual = message_fits.fit(points)
    assert residual == pytest.approx(max(abs((latency + size / rate) / seconds - 1) for size, seconds in points))
    assert message_fits.fit(points[:2])[2] is None


def test_a_latency_below_nothing_is_none() -> None:
    latency, rate, _ = message_fits.fit([(2**20, 1e-3), (2**24, 20e-3)])
    assert latency == 0.0
    assert 2**20 / 1e-3 >= rate >= 2**24 / 20e-3


@pytest.mark.parametrize(
    ("operation", "factor"), [("all_reduce", 1.75), ("all_gather", 0.875), ("reduce_scatter", 0.875), ("broadcast", 1)]
)
def test_bus_bandwidth_is_that_of_nccl_tests(operation: str, factor: float) -> None:
    assert message_fits.bus_factor(operation, 8) == factor


def test_the_slowest_rank_decides_and_the_skew_is_told(bench: Bench) -> None:
    group = results(bench, "collectives").groups()[0]
    record = group.records[0]
    slowest = by_rank.slowest(record, "call_s")
    assert slowest == [max(pair) for pair in zip(*record.samples["call_s"], strict=True)]
    row = experiments.load("collectives").tabulate(results(bench, "collectives"))[0].rows[0]
    assert 0 < row["skew_ratio"] < 0.1
    assert row["algorithm_bytes_per_s"] == pytest.approx(4096 / (1e-4 + 4.096e-6), rel=0.05)


def test_sentences_tell_latency_and_bandwidth(bench: Bench) -> None:
    text = text_of(bench, "collectives")
    assert "The highest bus bandwidth is" in text
    assert "All reduce on 2 ranks (gloo) costs 10" in text
    assert "Two numbers describe every operation with three or more sizes to within" in text


# -- data parallelism --------------------------------------------------------------------------------------------------


def test_exposed_is_measured_in_two_ways(bench: Bench) -> None:
    rows = {(row["strategy"], row["bucket_mib"]): row for row in experiments.load("data_parallel").tabulate(
        results(bench, "data_parallel"))[0].rows}  # fmt: skip
    assert rows["naive", None]["comm_wait_median_s"] == pytest.approx(0.030, rel=0.05)
    assert rows["naive", None]["exposed_median_s"] == pytest.approx(0.030, rel=0.1)
    assert rows["overlapped", None]["comm_wait_median_s"] == pytest.approx(0.012, rel=0.05)
    assert rows["overlapped", None]["exposed_median_s"] == pytest.approx(0.018, rel=0.1)
    assert rows["torch_ddp", 5]["comm_wait_median_s"] is None


def test_sentences_rank_the_strategies_and_name_a_disagreement(bench: Bench) -> None:
    text = text_of(bench, "data_parallel")
    assert "Of its step a strategy exposes as communication: naive 46 %, flat 36 %, overlapped 34 %, bucketed" in text
    assert "disagree by more than 10 % of the step: overlapped (6" in text
    assert "more by the difference of steps)" in text
    assert "Of buckets of 1 MiB and 5 MiB those of" in text


def test_a_bar_is_met_not_met_or_unclear(tmp_path: Path) -> None:
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
    table = experiments.load("data_parallel").tabulate(results(bench, "data_parallel"))[2]
    assert [row["verdict"] for row in table.rows] == ["met", "unclear, the bar is inside the interval", "not met"]
    text = text_of(bench, "data_parallel")
    assert "(nano, bucket_mib 1), where at most 1.02× is asked: met." in text


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


def test_differences_are_taken_step_by_step(bench: Bench) -> None:
    group = next(g for g in results(bench, "data_parallel").groups() if g.point["strategy"] == "flat")
    record = group.records[0]
    steps = zip(*(by_rank.slowest(record, key) for key in ("step_s", "without_communication_s")), strict=True)
    expected = sorted(one - other for one, other in steps)
    found = by_rank.differences(group, "step_s", "without_communication_s")
    assert found is not None
    assert found.median == pytest.approx(expected[len(expected) // 2])


# -- sharding ----------------------------------------------------------------------------------------------------------


def test_what_a_rank_keeps_stands_beside_what_everybody_keeps(bench: Bench) -> None:
    text = text_of(bench, "optimizer_sharding")
    assert (
        "sharded broadcast (nano) keeps after the update, against replicated: parameters 1.00×, gradients 1.00×" in text
    )
    assert "and optimizer state 0.500×" in text
    assert "sharded broadcast (xl) keeps after the update by prediction, against replicated" in text
    assert "Every predicted peak is within 0.01 % of the measured one." in text
    assert "A step of sharded broadcast takes 0.7" in text
    assert "where at most 1.00× is asked: met." in text


def test_fsdp_stands_beside_the_replicated_optimizer_of_the_other_experiment(bench: Bench) -> None:
    text = text_of(bench, "fsdp")
    assert "fsdp keeps after the update, against replicated: parameters 0.500×, gradients 0.500×" in text
    assert "Its peak of memory is 1.00× that of torch fsdp2, where at most 1.05× is asked: met." in text
    figure = experiments.load("fsdp").plot(results(bench, "fsdp"))["memory"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["replicated", "fsdp", "torch fsdp2"]


def test_moments_are_told_in_one_unit(bench: Bench) -> None:
    (row,) = [
        row for row in experiments.load("fsdp").tabulate(results(bench, "fsdp"))[0].rows if row["variant"] == "fsdp"
    ]
    assert row["built_gradients_bytes"] == 0
    text = tables.markdown(experiments.load("fsdp").tabulate(results(bench, "fsdp"))[0])
    assert "6.89 + 0.00 + 0.00 MiB" in text
    assert "6.89 + 6.89 + 13.8 MiB" in text


def test_a_variant_that_cannot_be_predicted_is_told(tmp_path: Path) -> None:
    bench = synthetic.bench(tmp_path, fsdp=[STEP | {"source": ["predicted"], "variant": ["torch_fsdp2"]}])
    (cell,) = bench.grid("fsdp")
    synthetic.write(bench, "fsdp", cell, status="unsupported", reason="a strategy must not look at values")
    told = findings.gaps(results(bench, "fsdp"))
    assert told == ["1 cell of 1 is not supported here: a strategy must not look at values."]


# -- the projection ----------------------------------------------------------------------------------------------------

WORK = Work(0.010, 0.020, 0.004, gradient_bytes=4e8, activation_bytes=1e6, layers=10)
NETWORK = Network(8, Link(1e-6, 4e11), Link(1e-5, 1e10))


def test_one_rank_communicates_nothing() -> None:
    for project in projection.STRATEGIES.values():
        step = project(WORK, NETWORK, 1)
        assert step.seconds == pytest.approx(WORK.compute_s)
        assert step.exposed_s == 0


def test_the_ring_costs_what_it_costs() -> None:
    assert NETWORK.ring_s(8, 8e8) == pytest.approx(2 * 7 * (1e-6 + 1e8 / 4e11))
    assert NETWORK.half_ring_s(16, 8e8) == pytest.approx(15 * (1e-5 + 5e7 / 1e10))
    assert NETWORK.half_ring_s(2, 8e8, across_nodes=True) == pytest.approx(1e-5 + 4e8 / 1e10)


def test_data_parallelism_hides_what_is_shorter_than_the_backward_pass() -> None:
    inside, across = (projection.data_parallel(WORK, NETWORK, ranks) for ranks in (8, 16))
    assert inside.exposed_s == 0
    assert across.exposed_s == pytest.approx(NETWORK.ring_s(16, 4e8) - 0.020)
    assert across.seconds == pytest.approx(WORK.compute_s + across.exposed_s)


def test_sharding_divides_the_update_and_gathers_parameters() -> None:
    step = projection.sharded(WORK, NETWORK, 4)
    gather = NETWORK.half_ring_s(4, 4e8)
    assert step.seconds == pytest.approx(0.030 + 0.001 + gather)
    assert step.exposed_s == pytest.approx(gather)


def test_fsdp_hides_gathers_behind_both_passes() -> None:
    assert projection.fsdp(WORK, NETWORK, 8).exposed_s == 0
    half = NETWORK.half_ring_s(64, 4e8)
    assert projection.fsdp(WORK, NETWORK, 64).exposed_s == pytest.approx(half - 0.010 + 2 * half - 0.020)


def test_tensor_parallelism_hides_nothing() -> None:
    step = projection.tensor_parallel(WORK, NETWORK, 8)
    assert step.exposed_s == pytest.approx(40 * NETWORK.ring_s(8, 1e6))
    assert step.seconds == pytest.approx(WORK.compute_s / 8 + step.exposed_s)
    both = projection.fsdp_and_tensor_parallel(WORK, NETWORK, 8)
    assert both.seconds == pytest.approx(step.seconds)
    assert projection.fsdp_and_tensor_parallel(WORK, NETWORK, 64).batches == 8


def test_a_projection_is_marked_everywhere(bench: Bench) -> None:
    found = results(bench, "data_parallel")
    table, figure = projection.table(found), projection.figure(found)
    assert [row["ranks"] for row in table.rows] == [2**power for power in range(13)]
    assert table.title.startswith("PROJECTION")
    assert table.caption.startswith("PROJECTION, not measured.")
    assert all(row["projected"] for row in table.rows)
    assert str(figure.get_label()).startswith("PROJECTION")
    assert "PROJECTION" in figure.axes[0].get_title(loc="left")
    sentences = projection.find(found)
    assert sentences[0].startswith("PROJECTION:")
    assert "over the step that was measured: data parallel 0." in sentences[1]


def test_the_model_is_held_against_measured_steps() -> None:
    """With the fit of an all-reduce in the network's place, a ring takes what the fit says."""
    made = projection._as_network(FIT)
    assert made.ring_s(2, 1e6) == pytest.approx(FIT.seconds(1e6))
    four = Fit("all_gather", "gloo", 4, latency_s=3e-4, bytes_per_s=2e9, residual_ratio=None, messages=2)
    assert projection._as_network(four).half_ring_s(4, 1e6) == pytest.approx(four.seconds(1e6))


def test_without_a_network_there_is_no_projection(tmp_path: Path) -> None:
    settings = synthetic.settings(**GRIDS)
    del settings["network"]
    bench = Bench(settings, root=tmp_path, schema=synthetic.ROOT / "config.schema.yaml")
    synthetic_on_ranks.fill(bench)
    found = results(bench, "data_parallel")
    assert found.network is None
    assert projection.find(found) == []
    assert "because config.yaml states no `network`" in projection.table(found).empty


def test_a_network_is_read_in_its_units() -> None:
    found = network.Network.of(
        {
            "ranks_per_node": 4,
            "intra_node": {"latency_us": 3, "bandwidth_gb_per_s": 450},
            "inter_node": {"latency_us": 5, "bandwidth_gb_per_s": 50},
        }
    )
    assert found is not None
    assert found.intra_node == Link(pytest.approx(3e-6), pytest.approx(450e9))
    assert "4 ranks in a node, 3 µs and 450 GB/s inside a node, 5 µs and 50 GB/s between nodes" in found.in_words()
    assert math.isclose(found.link(5).latency_s, 5e-6)
