"""Each sentence branches on what came out: the data is changed, and the words follow."""

from __future__ import annotations

import pytest
from tests.reporting import synthetic
from tests.reporting.conftest import results

from stepbench.experiments.end_to_end import findings
from stepbench.reporting.peaks import Peaks

GRID = {"end_to_end": [{"size": ["nano", "micro"], "context": [64, 256]}]}


def bench_with(tmp_path, times):
    """A bench whose phases take `times[size, context]` (or the other's where a key is missing)."""
    bench = synthetic.bench(tmp_path, **GRID)
    for cell in bench.grid("end_to_end"):
        phases = times.get((cell.size, cell.context), times["all"])
        samples = {
            f"{name}_s": [value] * 7 for name, value in zip(("forward", "backward", "optimizer"), phases, strict=True)
        }
        samples["step_s"] = [sum(phases)] * 7
        scalars = {"forward_flops": 10, "backward_flops": 20, "tokens_per_step": 4 * cell.context}
        synthetic.write(bench, "end_to_end", cell, samples=samples, scalars=scalars)
    return results(bench, "end_to_end").groups()


def test_one_phase_may_dominate_everywhere(tmp_path):
    groups = bench_with(tmp_path, {"all": (1.0, 2.0, 1.0)})
    assert [*map(str, findings._dominant_phase(groups))] == [
        "The backward pass takes the largest part of a step at every size: 50 % of the sum of phases "
        "(batch 4, train step)."
    ]


def test_or_different_phases_at_different_sizes(tmp_path):
    groups = bench_with(tmp_path, {"all": (1.0, 2.0, 1.0), ("nano", 64): (1.0, 1.0, 8.0)})
    told = [*map(str, findings._dominant_phase(groups))]
    backward = next(each for each in told if each.startswith("The backward"))
    assert "at nano, context 256, micro, context 64 and micro, context 256" in backward
    optimizer = next(each for each in told if each.startswith("The optimizer"))
    assert optimizer.endswith("at nano, context 64: 80 % of the sum of phases (batch 4, train step).")


def test_backward_over_forward_has_its_range(tmp_path):
    groups = bench_with(tmp_path, {"all": (1.0, 2.0, 1.0), ("nano", 64): (1.0, 3.0, 1.0)})
    assert [*map(str, findings._backward_over_forward(groups))] == [
        "The backward pass takes 2.00× (micro, context 256) to 3.00× (nano, context 64) as long as the forward pass; "
        "it has 2.00× the FLOPs (batch 4, train step)."
    ]
    assert findings._backward_over_forward([]) == []


def scaled(tmp_path, times, processes):
    """The sentence about a step whose times at context 64 and 256 a test has chosen, for some number of processes."""
    grid = [{"size": ["nano"], "context": [64, 256], "replicate": list(range(processes))}]
    bench = synthetic.bench(tmp_path, end_to_end=grid)
    for cell in bench.grid("end_to_end"):
        value = times[cell.context] * (1 + 0.002 * cell.replicate)
        synthetic.write(bench, "end_to_end", cell, samples={"step_s": [value] * 7})
    (finding,) = findings._scaling(results(bench, "end_to_end").groups(), "context")
    return finding


@pytest.mark.parametrize(
    ("long", "words"), [(4.0, "nearly linear"), (6.0, "more than linear"), (2.0, "less than linear")]
)
def test_scaling_is_judged_by_several_processes(tmp_path, long, words):
    finding = scaled(tmp_path, {64: 1.0, 256: long}, processes=5)
    assert str(finding).startswith("4× the context (64 to 256) makes a step of nano ")
    assert str(finding).endswith(f"as long: {words} (batch 4, train step).")
    assert finding.evidence.certainty == "stated"


def test_one_process_each_judges_no_scaling(tmp_path):
    """“less than linear” stood here of one process a side, without a hedge."""
    finding = scaled(tmp_path, {64: 1.0, 256: 2.0}, processes=1)
    assert str(finding) == (
        "4× the context (64 to 256) makes a step of nano 2.00× as long (batch 4, train step). "
        "One process each: no verdict."
    )
    assert finding.evidence.certainty == "no verdict"


def test_utilisation_needs_a_peak(tmp_path, full):
    groups = bench_with(tmp_path, {"all": (1.0, 1.0, 1.0)})
    assert "MFU is unknown" in str(findings._utilisation(groups, Peaks())[0])
    assert findings._utilisation([], Peaks()) == []
    found = results(full, "end_to_end")
    assert str(findings._utilisation(found.groups(), found.peaks)[0]).startswith("MFU is ")
