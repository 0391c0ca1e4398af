"""The projection held against measured steps, on one node and on two."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reporting import synthetic, synthetic_on_ranks
from tests.reporting.conftest import STEP, markdown, results

from stepbench.experiments.data_parallel import findings, network, projected_step, projection, projection_check
from stepbench.experiments.data_parallel.network import Network
from stepbench.pipeline.bench import Bench
from stepbench.reporting.message_fits import Fit

FIT = Fit("all_reduce", "gloo", 2, latency_s=1e-4, bytes_per_s=1e9, residual_ratio=0.0, messages=3)
TWO_NODES: dict[str, list[dict[str, Any]]] = {
    "data_parallel": [STEP | {"strategy": ["bucketed"], "bucket_mib": [5], "ranks": [2], "nodes": [1, 2]}],
    "fsdp": [STEP | {"source": ["measured"], "variant": ["fsdp"], "ranks": [2], "nodes": [1, 2]}],
    "collectives": [{"operation": ["all_reduce"], "backend": ["gloo"], "ranks": [2], "payload_bytes": [4096, 2**24]}],
}
NAMES = ["alps", "jura"]


def two_nodes(root: Path, **more: Any) -> Bench:
    """Return a bench whose steps on two nodes take 70 ms more than those on one."""
    bench = synthetic.bench(root, **TWO_NODES | more)
    rng = np.random.default_rng(0)
    for name in bench.names:
        for cell in bench.grid(name):
            found = synthetic_on_ranks.MEASURED[name](bench, cell, rng, 0.01)
            if cell.nodes > 1:
                found["details"] = {**found.get("details", {}), "nodes": NAMES}
                slower = {"step_s": [[value + 0.07 for value in rank] for rank in found["samples"].get("step_s", [])]}
                found["samples"] |= slower if "step_s" in found["samples"] else {}
            synthetic.write(bench, name, cell, **found)
    return bench


def test_on_one_node_the_model_is_checked_with_its_own_network(on_ranks: Bench) -> None:
    found = results(on_ranks, "data_parallel")
    (sentence,) = map(str, projection_check.find(found))
    assert "for 2 ranks, over the measured step: data parallel 0." in sentence
    table = projection_check.table(found)
    assert {row["stated_s"] for row in table.rows} == {None}
    assert "projection over measured" not in markdown(table)


def test_the_model_is_held_against_measured_steps() -> None:
    """With the fit of an all-reduce in the network's place, a ring takes what the fit says."""
    made = projection_check._as_network(FIT)
    assert made.ring_s(2, 1e6) == pytest.approx(FIT.seconds(1e6))
    four = Fit("all_gather", "gloo", 4, latency_s=3e-4, bytes_per_s=2e9, residual_ratio=None, messages=2)
    assert projection_check._as_network(four).half_ring_s(4, 1e6) == pytest.approx(four.seconds(1e6))


def test_the_projection_says_by_how_much_it_was_off_on_two_nodes(tmp_path: Path) -> None:
    found = results(two_nodes(tmp_path), "data_parallel")
    (sentence,) = (str(each) for each in projection_check.find(found) if "on 2 nodes" in each.text)
    number = r"([\d.]+) (ms|s)"
    told = re.search(
        r"PROJECTION against measurement, 2 ranks on 2 nodes: with the network of config.yaml data parallel was "
        rf"projected to take {number} and took {number} \((\d+) % too short\) and FSDP was projected",
        sentence,
    )
    assert told is not None, sentence
    (row, sharded) = (row for row in projection_check.table(found).rows if row["nodes"] == 2)
    _, work = projection.basis(found) or pytest.fail("there is a step to project from")
    stated = Network.of(found.settings["network"])
    assert stated is not None
    one_a_node = network.Network(1, stated.intra_node, stated.inter_node)
    assert row["stated_s"] == pytest.approx(projected_step.data_parallel(work, one_a_node, 2).seconds)
    assert row["stated_s"] < row["measured_s"]
    assert row["measured_s"] == pytest.approx(synthetic_on_ranks.FORWARD_S + 0.099, rel=0.05)
    assert int(told[5]) == pytest.approx(100 * (1 - row["stated_s"] / row["measured_s"]), abs=1)
    assert sharded["name"] == "FSDP"
    assert row["projected_s"] is None  # no collective was measured on two nodes
    assert "Measured on the nodes alps and jura." in sentence


def test_with_collectives_of_two_nodes_both_networks_are_held_against_the_step(tmp_path: Path) -> None:
    collectives = [TWO_NODES["collectives"][0] | {"nodes": [1, 2]}]
    found = results(two_nodes(tmp_path, collectives=collectives), "data_parallel")
    own, as_projected = (str(each) for each in projection_check.find(found) if "on 2 nodes" in each.text)
    assert "gives for 2 ranks on 2 nodes, over the measured step: data parallel 0." in own
    assert "ranks share cores" not in own
    assert as_projected.startswith("PROJECTION against measurement, 2 ranks on 2 nodes")


def test_without_a_network_only_the_model_is_checked(tmp_path: Path) -> None:
    collectives = [TWO_NODES["collectives"][0] | {"nodes": [1, 2]}]
    bench = two_nodes(tmp_path, collectives=collectives)
    found = results(bench, "data_parallel")
    del found.settings["network"]  # type: ignore[attr-defined]
    assert [str(each).partition(",")[0] for each in projection_check.find(found)] == [
        "With latency and bandwidth of this machine's own all-reduce the same model gives for 2 ranks",
        "With latency and bandwidth of this machine's own all-reduce the same model gives for 2 ranks on 2 nodes",
    ]


def test_a_step_of_another_size_is_no_check(tmp_path: Path) -> None:
    """Two sizes in one grid: only that which is projected from is held against it."""
    grid = TWO_NODES["data_parallel"][0] | {"size": ["micro", "nano"]}
    found = results(two_nodes(tmp_path, data_parallel=[grid]), "data_parallel")
    group, _ = projection.basis(found) or pytest.fail("there is a step to project from")
    assert group.point["size"] == "micro"
    rows = [row for row in projection_check.table(found).rows if row["name"] == "data parallel"]
    assert len(rows) == 2
    assert all("size~micro" in path for row in rows for path in row["records"][""] if "data_parallel" in path)


def test_findings_of_several_nodes_name_them(tmp_path: Path) -> None:
    told = [str(each) for each in findings.find(results(two_nodes(tmp_path), "data_parallel"))]
    about = [each for each in told if "nodes 2" in each or "2 nodes" in each]
    assert about
    assert all("Measured on the nodes alps and jura." in each for each in about), about
    assert not any("alps" in each for each in told if each not in about and "nodes 1" in each)
