"""The projection to more ranks, and the network that it assumes."""

import dataclasses
import math
from pathlib import Path

import pytest
from tests.reporting import synthetic, synthetic_on_ranks
from tests.reporting.conftest import ON_RANKS_GRIDS, results

from stepbench.experiments.data_parallel import network, projected_step, projection
from stepbench.experiments.data_parallel.network import Link, Network
from stepbench.experiments.data_parallel.projected_step import Work
from stepbench.pipeline.bench import Bench

WORK = Work(0.010, 0.020, 0.004, gradient_bytes=4e8, activation_bytes=1e6, layers=10, heads=16)
NETWORK = Network(8, Link(1e-6, 4e11), Link(1e-5, 1e10))


def test_one_rank_communicates_nothing() -> None:
    for project in projected_step.STRATEGIES.values():
        step = project(WORK, NETWORK, 1)
        assert step is not None
        assert step.seconds == pytest.approx(WORK.compute_s)
        assert step.exposed_s == 0


def test_the_ring_costs_what_it_costs() -> None:
    assert NETWORK.ring_s(8, 8e8) == pytest.approx(2 * 7 * (1e-6 + 1e8 / 4e11))
    assert NETWORK.half_ring_s(16, 8e8) == pytest.approx(15 * (1e-5 + 5e7 / 1e10))
    assert NETWORK.half_ring_s(2, 8e8, across_nodes=True) == pytest.approx(1e-5 + 4e8 / 1e10)


def test_data_parallelism_hides_what_is_shorter_than_the_backward_pass() -> None:
    inside, across = (projected_step.data_parallel(WORK, NETWORK, ranks) for ranks in (8, 16))
    assert inside.exposed_s == 0
    assert across.exposed_s == pytest.approx(NETWORK.ring_s(16, 4e8) - 0.020)
    assert across.seconds == pytest.approx(WORK.compute_s + across.exposed_s)


def test_sharding_divides_the_update_and_gathers_parameters() -> None:
    step = projected_step.sharded(WORK, NETWORK, 4)
    gather = NETWORK.half_ring_s(4, 4e8)
    assert step.seconds == pytest.approx(0.030 + 0.001 + gather)
    assert step.exposed_s == pytest.approx(gather)


def test_fsdp_hides_gathers_behind_both_passes() -> None:
    assert projected_step.fsdp(WORK, NETWORK, 8).exposed_s == 0
    half = NETWORK.half_ring_s(64, 4e8)
    assert projected_step.fsdp(WORK, NETWORK, 64).exposed_s == pytest.approx(half - 0.010 + 2 * half - 0.020)


def test_tensor_parallelism_hides_nothing() -> None:
    step = projected_step.tensor_parallel(WORK, NETWORK, 8)
    assert step is not None
    assert step.exposed_s == pytest.approx(40 * NETWORK.ring_s(8, 1e6))
    assert step.seconds == pytest.approx(WORK.compute_s / 8 + step.exposed_s)
    both = projected_step.fsdp_and_tensor_parallel(WORK, NETWORK, 8)
    assert both.seconds == pytest.approx(step.seconds)
    assert projected_step.fsdp_and_tensor_parallel(WORK, NETWORK, 64).batches == 8


def test_tensor_parallelism_ends_where_ranks_do_not_divide_the_heads() -> None:
    """Of 25 heads no two ranks get the same number; it was projected to 4096 ranks."""
    odd = dataclasses.replace(WORK, heads=25)
    assert projected_step.tensor_parallel(odd, NETWORK, 1) is not None
    assert [projected_step.tensor_parallel(odd, NETWORK, 2**power) for power in range(1, 13)] == [None] * 12
    assert projected_step.tensor_parallel(WORK, NETWORK, 32) is None
    alone = projected_step.fsdp_and_tensor_parallel(odd, NETWORK, 8)  # FSDP on all, tensor parallelism on none
    assert alone.seconds == pytest.approx(projected_step.fsdp(odd, NETWORK, 8).seconds)
    four = dataclasses.replace(WORK, heads=4)
    assert projected_step.fsdp_and_tensor_parallel(four, NETWORK, 64).batches == 16


def test_the_table_says_where_tensor_parallelism_ends_and_why_efficiencies_exceed_100_percent(on_ranks: Bench) -> None:
    found = results(on_ranks, "data_parallel")
    table = projection.table(found)  # of nano, which has 4 heads
    shares = {row["ranks"]: row["tensor parallel_efficiency_ratio"] for row in table.rows}
    assert [ranks for ranks, share in shares.items() if share is not None] == [1, 2, 4]
    assert "Tensor parallelism divides the 4 heads, and ends at 4 of these numbers of ranks." in table.caption
    above = any((row[f"{name}_efficiency_ratio"] or 0) > 1 for row in table.rows for name in projected_step.STRATEGIES)
    assert above
    assert "Efficiencies above 100 %: one rank alone updates all parameters" in table.caption
    lines = {str(line.get_label()): line for line in projection.figure(found).axes[0].get_lines()}
    assert list(lines["tensor parallel"].get_xdata()) == [1, 2, 4]


def test_a_projection_is_marked_everywhere(on_ranks: Bench) -> None:
    found = results(on_ranks, "data_parallel")
    table, figure = projection.table(found), projection.figure(found)
    assert [row["ranks"] for row in table.rows] == [2**power for power in range(13)]
    assert table.title.startswith("PROJECTION")
    assert table.caption.startswith("PROJECTION, not measured, ")
    assert all(row["projected"] for row in table.rows)
    assert str(figure.get_label()).startswith("PROJECTION")
    assert "PROJECTION" in figure.axes[0].get_title(loc="left")
    (sentence,) = map(str, projection.find(found))
    assert sentence.startswith("PROJECTION:")


def test_without_a_network_there_is_no_projection(tmp_path: Path) -> None:
    settings = synthetic.settings(**ON_RANKS_GRIDS)
    del settings["network"]
    bench = Bench(settings, root=tmp_path, schema=synthetic.ROOT / "config.schema.yaml")
    synthetic_on_ranks.fill(bench)
    found = results(bench, "data_parallel")
    assert projection.network_of(found) is None
    assert [*map(str, projection.find(found))] == []
    assert "because config.yaml states no network" in projection.table(found).empty


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
    assert "4 ranks per node, 3 µs and 450 GB/s inside a node, 5 µs and 50 GB/s between nodes" in found.in_words()
    assert math.isclose(found.link(5).latency_s, 5e-6)
