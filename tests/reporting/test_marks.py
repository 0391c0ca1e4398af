"""What has not settled, what lies apart and what is noisy says so; nothing is dropped."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from tests.measure.fake_clock import FakeClock

from stepbench.measure import timing
from stepbench.reporting import marks
from stepbench.reporting.marks import Mark
from stepbench.reporting.statistics import summarize


def kinds(samples):
    return [mark.kind for mark in marks.find([np.array(samples, dtype=float)])]


def test_one_of_thirty_times_five_is_marked_and_kept():
    samples = np.random.default_rng(0).normal(1.0, 0.005, 30).tolist()
    samples[17] *= 5
    summary = summarize([samples])
    assert "outliers (1 of 30)" in map(str, summary.marks)
    assert summary.samples == 30
    assert summary.mean == pytest.approx(np.mean(samples))  # the outlier is in it


def test_an_outlier_among_equal_samples_is_marked():
    assert "outliers" in kinds([1.0] * 9 + [5.0])


def test_a_quiet_cell_has_no_marks():
    rng = np.random.default_rng(1)
    marked = sum(bool(kinds(rng.normal(1.0, 0.01, 10))) for _ in range(500))
    assert marked <= 5


def timed(durations):
    """Time an operation that takes so long each time, with the real protocol."""
    ticks = itertools.accumulate(itertools.chain.from_iterable((0.5, each) for each in durations))
    return timing.time_whole(lambda: None, clock=FakeClock(ticks), repeats=len(durations))


def test_an_operation_that_has_not_settled_is_marked():
    steps = np.arange(10)
    assert "drifting" in kinds(timed(1.0 + 0.8 * np.exp(-steps)))
    assert "drifting" in kinds(timed(1.0 + 0.02 * steps))
    assert kinds(timed(1.0 + 0.004 * np.sin(7 * steps))) == []


def test_a_drift_is_told_with_its_size_and_direction():
    steps = np.arange(10)
    up = marks.find([1.0 + 0.02 * steps])
    assert [str(mark) for mark in up] == ["drifting (+17 %)"]
    assert str(marks.find([1.0 - 0.02 * steps])[0]) == "drifting (-20 %)"


def test_a_drift_too_small_to_matter_is_not_marked():
    assert kinds(1.0 + 0.001 * np.arange(10)) == []


def test_drift_is_told_by_process():
    drifting, steady = 1.0 + 0.02 * np.arange(10), np.tile([1.0, 1.01], 5)
    assert "in 1 of 2 processes" in str(marks.find([drifting, steady])[0])


def test_noise_is_marked_with_its_size():
    assert str(marks.find([np.array([1.0, 1.5] * 6)])[-1]) == "noisy (CV 21 %)"


def test_the_quality_is_the_worst_that_a_warning_gives():
    assert [
        marks.quality(map(Mark, kinds)) for kinds in ([], ["noisy"], ["noisy", "disturbed"], ["impossible", "short"])
    ] == [*"ABCD"]


def test_every_warning_is_explained():
    for kind, meaning in marks.MEANING.items():
        assert marks.legend([Mark(kind, "3 of 7", "baseline"), Mark(kind)]) == f"{kind}: {meaning}"
    assert marks.legend([]) == ""


def test_the_text_of_warnings_has_each_kind_once():
    found = [
        *marks.about("forward", [Mark("noisy", "CV 12 %")]),
        Mark("short", "step 20 µs"),
        *marks.about("step", [Mark("noisy", "CV 14 %"), Mark("wrong")]),
    ]
    assert marks.text(found) == "noisy (forward CV 12 %, step CV 14 %); short (step 20 µs); wrong (step)"
    assert marks.text([Mark("wrong")]) == "wrong"
    assert marks.text([]) == ""


@pytest.mark.parametrize("samples", [[1.0], [0.0, 0.0], [0.0] * 8, [1.0] * 8])
def test_degenerate_samples_have_no_marks(samples):
    assert kinds(samples) == []


@pytest.mark.parametrize("n", [5, 7, 10, 20])
def test_the_trend_test_decides_as_the_exact_one(n: int) -> None:
    """scipy's exact test is the oracle; the approximation is a little stricter where the exact p is just below 1 %."""
    generator = np.random.default_rng(0)
    for spread in np.repeat([0.5, 1.0, 2.0, 4.0], 50):
        ranks = np.argsort(np.argsort(np.arange(n) + generator.normal(size=n) * spread))
        samples = 1.0 + 0.5 * ranks / n
        exact = float(scipy.stats.kendalltau(np.arange(n), samples, method="exact").pvalue)
        change = float(scipy.stats.theilslopes(samples, np.arange(n)).slope) * (n - 1) / float(np.median(samples))
        if 0.8 * marks.DRIFT_P < exact <= marks.DRIFT_P:
            continue
        expected = exact <= marks.DRIFT_P and abs(change) > marks.DRIFT_RATIO
        assert ("drifting" in kinds(samples)) == expected
