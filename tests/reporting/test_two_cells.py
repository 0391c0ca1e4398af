"""Two cells that were measured in turn: each time that both have, its ratio and its verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.reporting import synthetic

from stepbench.experiments import experiment as experiments
from stepbench.pipeline.state import States
from stepbench.reporting import frames, marks, tables, two_cells
from stepbench.reporting.columns import MARKS_OF_ROW

GRID = {"size": ["nano"], "context": [64], "implementation": ["eager", "compiled"], "passes": ["forward"]}


def made(root: Path, processes: int, *, second: float, **more: Any) -> tables.Table:
    """Return the table of an eager cell of 10 ms and a compiled one that takes `second` of that."""
    bench = synthetic.bench(root, end_to_end=[GRID | {"replicate": list(range(processes))}])
    for cell in bench.grid("end_to_end"):
        median = 0.010 * (second if cell.implementation == "compiled" else 1.0) * (1 + 0.001 * cell.replicate)
        samples = {"forward_s": [median * (1 + 0.001 * step) for step in range(7)], "forward_system_s": [0.0] * 7}
        synthetic.write(bench, "end_to_end", cell, samples=samples, **more)
    results = frames.load(States(bench), experiments.load("end_to_end"), bench.grid("end_to_end"))
    return two_cells.table(*results.groups())


@pytest.mark.parametrize(
    ("processes", "second", "verdict"),
    [
        (1, 0.5, "one process each: no verdict"),
        (4, 0.5, "4 processes each: no verdict below five"),
        (5, 0.5, "FASTER"),
        (5, 2.0, "SLOWER"),
        (5, 1.0, "SAME"),
    ],
)
def test_each_time_of_both_has_a_ratio_and_a_verdict(
    tmp_path: Path, processes: int, second: float, verdict: str
) -> None:
    table = made(tmp_path, processes, second=second)
    (row,) = table.rows
    assert (row["time"], row["verdict"], row["processes"]) == ("forward", verdict, f"{processes} / {processes}")
    assert row["speedup_ratio"] == pytest.approx(1 / second, rel=1e-3)
    assert table.caption.startswith("a: implementation eager; b: implementation compiled. The ratio")


def test_warnings_name_the_side(tmp_path: Path) -> None:
    load = {"wall_s": 10.0, "cores": 2, "others_cpu_s": 9.0}
    (row,) = made(tmp_path, 1, second=0.5, environment={**synthetic.FACTS, "during": load}).rows
    told = marks.text(row[MARKS_OF_ROW])
    assert told.startswith("disturbed (a 45 % of the CPU used by other processes, b 45 %")
    assert row["quality"] == "C"
