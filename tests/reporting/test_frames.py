from __future__ import annotations

import dataclasses

import pytest
from tests.reporting import synthetic
from tests.reporting.conftest import results

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import reach
from stepbench.reporting import points

WARMUP = {"warmup": [{"size": ["nano"], "warmup": [0, 1], "replicate": [0, 1]}]}


@pytest.fixture
def bench(tmp_path):
    return synthetic.bench(tmp_path, **WARMUP)


def write(bench, index, **fields):
    return synthetic.write(bench, "warmup", bench.grid("warmup")[index], **fields)


def test_every_configured_cell_has_a_row_whatever_became_of_it(bench):
    write(bench, 0, samples={"step_s": [1.0, 2.0]}, scalars={"parameters": 7})
    write(bench, 1, status="oom", reason="MemoryError: too large")
    write(bench, 2, fingerprint={"source": {}, "software": {"torch": "1.0"}}, samples={"step_s": [9.0]})
    found = results(bench, "warmup")
    assert [row["state"] for row in found.rows] == ["fresh", "fresh", "stale", "missing"]
    assert [row["status"] for row in found.rows] == ["ok", "oom", "ok", None]
    assert [points.is_ok(row) for row in found.rows] == [True, False, False, False]
    assert [points.label(row) for row in found.rows] == ["ok", "oom", "stale", "not measured"]


def test_replicates_are_grouped_and_a_stale_one_gives_no_number(bench):
    rounds = {(cell.warmup, cell.replicate): index for index, cell in enumerate(bench.grid("warmup"))}
    write(bench, rounds[0, 0], samples={"step_s": [1.0, 3.0]}, scalars={"parameters": 7})
    write(bench, rounds[0, 1], samples={"step_s": [100.0]}, scalars={"parameters": 7}, fingerprint={})
    group = results(bench, "warmup").groups()[0]
    assert group.point == {"size": "nano", "warmup": 0}
    assert group.processes("step_s") == [[1.0, 3.0]]
    assert group.summary("step_s").median == 2.0
    assert group.scalar("parameters") == 7
    assert group.status == "1 ok, 1 stale"
    assert group.reason
    assert len(group.paths) == 2
    assert group.summary("nothing_s") is None
    assert group.scalar("nothing") is None


def test_an_unreadable_record_is_named_and_gives_no_number(bench):
    write(bench, 0, samples={"step_s": [1.0]})
    path = bench.root / bench.path(bench.grid("warmup")[0])
    path.write_text(path.read_text().replace("1.0", "0.1"))
    row = results(bench, "warmup").rows[0]
    assert points.label(row) == "unreadable"
    assert "checksum" in points.why(row)[0]
    assert not any(map(points.is_ok, results(bench, "warmup").rows))


def test_failures_that_will_be_tried_again_keep_their_status(bench):
    write(bench, 0, status="error", reason="ValueError: no")
    row = results(bench, "warmup").rows[0]
    assert (row["state"], points.label(row), points.why(row)) == ("failed", "error", ("ValueError: no",))


def test_the_slowest_rank_is_the_number():
    record = dataclasses.replace(
        synthetic.records.Record("x", {}, "ok", {}, "", 0.0), samples={"step_s": [[1.0, 5.0], [2.0, 3.0]], "none_s": []}
    )
    assert points.processes([record], "step_s") == [[2.0, 5.0]]
    assert points.processes([record], "none_s") == []


def test_optional_axes_keep_their_types(full):
    found = results(full, "warmup")
    assert all(type(row["warmup"]) is int for row in found.rows)


def test_other_experiments_cells_come_along(full):
    found = results(full, "end_to_end")
    assert set(found.others) == set(experiments.load("end_to_end").reads) >= {"ceilings", "warmup"}
    assert sum(map(points.is_ok, found.others["ceilings"].rows)) == len(full.grid("ceilings"))


def test_an_experiment_without_cells_has_no_rows(tmp_path):
    found = results(synthetic.bench(tmp_path, **WARMUP), "numerics")
    assert found.rows == []
    assert found.groups() == []
    assert found.axes == ("case",)


def test_reporting_reaches_no_measuring_code():
    reached = reach.source("stepbench.reporting.writeup")
    assert not {name for name in reached if name.startswith("stepbench.kernels")}
    assert not {
        name for name in reached if name.startswith("stepbench.experiments.") and "experiment" not in name[-10:]
    }
