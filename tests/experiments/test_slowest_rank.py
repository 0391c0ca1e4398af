"""Of two real ranks the slower one is the number, and how far they are apart is kept."""

import dataclasses
import time
from pathlib import Path

from tests.experiments import sleeping_on_ranks
from tests.experiments.test_on_ranks import GENEROUS_S, SETTING
from tests.reporting import synthetic
from tests.reporting.conftest import results

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import records
from stepbench.workloads import ranks

GRID = {"operation": ["all_reduce"], "backend": ["gloo"], "ranks": [2], "payload_bytes": [4096]}


def test_of_two_ranks_the_one_that_sleeps_is_the_number(tmp_path: Path) -> None:
    setting = dataclasses.replace(SETTING, deadline=time.monotonic() + GENEROUS_S)
    samples = ranks.by_rank(ranks.call(sleeping_on_ranks.timed, setting, ranks=2))
    bench = synthetic.bench(tmp_path, collectives=[GRID])
    (cell,) = bench.grid("collectives")
    synthetic.write(bench, "collectives", cell, samples=samples, scalars={"message_bytes": 4096})

    kept = records.read(tmp_path / bench.path(cell)).samples["call_s"]
    assert [len(rank) for rank in kept] == [2, 2]
    shown = results(bench, "collectives")
    (group,) = shown.groups()
    summary = group.summary("call_s")
    assert summary is not None
    assert summary.median >= sleeping_on_ranks.SLEEP_S
    row = experiments.load("collectives").tabulate(shown)["messages"].rows[0]
    assert row["skew_ratio"] > 0.5
