"""A clock or a machine that lies: no number of it stands in a table or a sentence without its mark."""

from __future__ import annotations

import numpy as np
import pytest
from tests.measure.fake_clock import FakeClock
from tests.reporting import synthetic
from tests.reporting.conftest import markdown, results

from stepbench.experiments import experiment as experiments
from stepbench.measure import training_step
from stepbench.pipeline.records import RecordError
from stepbench.reporting import general_findings, points

GRID = {
    "end_to_end": [{"size": ["nano"], "context": [64]}],
    "ceilings": [{"operation": ["matmul"], "dtype": ["fp32"], "replicate": [0]}],
}
STEPS = 10


@pytest.fixture
def bench(tmp_path):
    """A machine whose peak is known; its one training step is for a test to measure."""
    bench = synthetic.bench(tmp_path, **GRID)
    synthetic.fill(bench, "ceilings")
    return bench


def told(bench, change):
    """Return the table and the sentences about a step whose times a test has changed."""
    (cell,) = bench.grid("end_to_end")
    fields = synthetic.decoder_step(bench, cell, np.random.default_rng(0), 0.001)
    fields["samples"] = {
        name: (
            change(np.array(values)) if name.endswith("_s") and not name.startswith("warmup") else np.array(values)
        ).tolist()
        for name, values in fields["samples"].items()
    }
    synthetic.write(bench, "end_to_end", cell, **fields)
    found = results(bench, "end_to_end")
    experiment = experiments.load("end_to_end")
    tables = experiment.tabulate(found)
    text = "\n".join(map(markdown, tables.values()))
    return text.replace("\\", ""), " ".join(map(str, general_findings.marked(found, tables.values())))


@pytest.mark.parametrize(
    ("change", "mark", "sentence"),
    [
        (lambda times: times * 1e-6, "impossible (", "exceeds a hardware limit"),
        (lambda times: times * np.linspace(1, 2, times.size), "drifting (", "drifts over the run"),
        (lambda times: times * np.resize([1.0, 2.0], times.size), "noisy (", "is noisy"),
        (lambda times: np.where(np.arange(times.size) == 3, 5 * times, times), "outliers (", "has outliers"),
    ],
    ids=["under the physical floor", "drift", "spread", "outliers"],
)
def test_a_number_that_cannot_be_trusted_is_marked(bench, change, mark, sentence):
    table, sentences = told(bench, change)
    assert mark in table
    assert sentence in sentences


def test_a_number_that_can_be_trusted_is_not_marked(bench):
    table, sentences = told(bench, lambda times: times)
    for mark in ("impossible", "drifting", "noisy", "outliers"):
        assert mark not in table
    assert "The one point measured has no warning." in sentences


def test_times_of_a_clock_that_runs_backwards_are_no_record(bench):
    clock = FakeClock(-tick / 100 for tick in range(100))
    samples = training_step.measure({"forward": list}, clock=clock, warmup_steps=0, measured_steps=STEPS)
    (cell,) = bench.grid("end_to_end")
    with pytest.raises(RecordError, match=r"`samples.forward_s` must be finite and not negative, got -0.01"):
        synthetic.write(bench, "end_to_end", cell, samples=samples)
    assert not any(map(points.is_ok, results(bench, "end_to_end").rows))
