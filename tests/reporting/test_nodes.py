"""Where points were measured, and whether those that are compared ran on the same nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.reporting import synthetic
from tests.reporting.conftest import markdown, results

from stepbench.pipeline.bench import Bench
from stepbench.reporting import comparisons, findings, nodes
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.nodes import Placed
from stepbench.reporting.points import Group, compared

GRID = [{"size": ["nano"], "context": [64], "precision": ["fp32", "bf16"], "replicate": [0, 1, 2, 3, 4]}]
APART = "The compared processes ran on nodes of different names: n1 and n2."


def bench_on(root: Path, **names: str) -> Bench:
    """Return a bench whose bf16 is twice as fast; `names` has a digit for the node of each process, - for none."""
    bench = synthetic.bench(root, end_to_end=GRID)
    for cell in bench.grid("end_to_end"):
        node = names[cell.precision][cell.replicate]
        environment = synthetic.FACTS | ({} if node == "-" else {"node": f"n{node}"})
        seconds = (1.0 if cell.precision == "fp32" else 0.5) * (1 + 0.003 * cell.replicate)
        samples = {"step_s": [seconds * (1 + 0.001 * step) for step in range(7)]}
        synthetic.write(bench, "end_to_end", cell, samples=samples, environment=environment)
    return bench


def sides(bench: Bench) -> list[Group]:
    return results(bench, "end_to_end").groups()


@pytest.mark.parametrize(
    ("fp32", "bf16", "told"),
    [
        ("11111", "11111", ""),
        ("11111", "22222", APART),
        ("11111", "11112", APART),
        ("11221", "21112", ""),  # as often on each
        ("-----", "-----", ""),  # records from before nodes were named
        ("11111", "-----", ""),
        ("1----", "22222", APART),
        (
            "12345",
            "11111",
            "The compared processes ran on nodes of different names: n1, n2, n3 and 2 more.",
        ),
    ],
)
def test_a_comparison_says_where_processes_ran_on_different_nodes(
    tmp_path: Path, fp32: str, bf16: str, told: str
) -> None:
    bench = bench_on(tmp_path, fp32=fp32, bf16=bf16)
    base, other = sides(bench)
    evidence = Evidence.of((base, other), "step_s", comparison=compared(base, other, "step_s"))
    assert evidence.caveat == told
    assert Evidence.of((base, other), "step_s").caveat == ""  # nothing is compared
    found = comparisons.pairs(results(bench, "end_to_end"), "precision", "fp32")
    (finding,) = findings.comparison(found)
    assert finding.text.endswith(told)
    assert ("nodes" in finding.text) == bool(told)
    shown = markdown(comparisons.table(found, title="Precision", caption="C.", empty="Nothing is compared."))
    assert ("on different nodes" in shown) == bool(told)


def test_a_ranking_says_so_too(tmp_path: Path) -> None:
    groups = sides(bench_on(tmp_path, fp32="11111", bf16="22222"))
    made = Evidence.ranking(groups, "step_s", compared(*groups, "step_s"))
    assert made.is_ranking
    assert made.caveat == APART


def test_a_side_with_fewer_processes_may_use_the_same_nodes(tmp_path: Path) -> None:
    bench = bench_on(tmp_path, fp32="1212-", bf16="12---")
    assert nodes.placed(sides(bench), compared=True) == Placed(("n1", "n2"), several=False, apart=False)


@pytest.mark.parametrize(
    ("details", "environment", "names"),
    [
        ({"nodes": ["b", "a"]}, {"node": "b"}, ("b", "a")),
        ({}, {"node": "a"}, ("a",)),
        ({}, {}, ()),
        ({"nodes": []}, {"node": None}, ()),
        ({"nodes": "b"}, {"node": 3}, ()),  # a record from elsewhere
    ],
)
def test_a_record_tells_its_nodes(
    tmp_path: Path, details: dict[str, Any], environment: dict[str, Any], names: tuple[str, ...]
) -> None:
    bench = synthetic.bench(tmp_path, end_to_end=[{"size": ["nano"], "context": [64]}])
    (cell,) = bench.grid("end_to_end")
    record = synthetic.write(bench, "end_to_end", cell, details=details, environment=environment)
    assert nodes.of(record) == names
