"""The rule that ends a trial, simulated with fixed seeds: how often it errs, and what it finds."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from stepbench.comparison import in_turn
from stepbench.comparison.in_turn import Trial
from stepbench.reporting import statistics
from stepbench.reporting.statistics import Verdict

SETS = 3000
AT_DEFAULT_BUDGET = 20  # processes a side: 20 minutes are enough for as many of half a minute each
SPREAD = 0.02  # between the medians of processes
Rows = NDArray[np.float64]


def decided(baseline: Rows, other: Rows, most: int) -> NDArray[np.str_]:
    """Return each row's verdict where the rule ends it, or UNCLEAR where `most` processes a side do not decide."""
    found = np.full(len(baseline), Verdict.UNCLEAR.value)
    look = 1
    while (count := in_turn.processes_at(look)) <= most and (waiting := found == Verdict.UNCLEAR.value).any():
        found[waiting] = statistics.verdicts(baseline[waiting, :count], other[waiting, :count], in_turn.level(look))
        look += 1
    return found


def share(found: NDArray[np.str_], *verdicts: Verdict) -> float:
    return float(np.isin(found, [verdict.value for verdict in verdicts]).mean())


@pytest.mark.parametrize("spread", [0.005, SPREAD, 0.1])
def test_the_same_is_called_different_in_at_most_2_percent_of_trials(spread: float) -> None:
    rng = np.random.default_rng(1)
    found = decided(*rng.normal(0, spread, (2, SETS, 40)), most=40)
    assert share(found, Verdict.FASTER, Verdict.SLOWER) <= in_turn.ERROR_RATIO == 0.02


def test_heavy_tails_keep_the_error() -> None:
    rng = np.random.default_rng(2)
    found = decided(*(0.02 * rng.standard_t(2, (2, SETS, 20))), most=20)
    assert share(found, Verdict.FASTER, Verdict.SLOWER) <= in_turn.ERROR_RATIO


@pytest.mark.parametrize(("effect", "verdict"), [(1.1, Verdict.SLOWER), (1 / 1.1, Verdict.FASTER)])
def test_ten_percent_is_found_in_at_least_90_percent_of_trials(effect: float, verdict: Verdict) -> None:
    rng = np.random.default_rng(3)
    baseline, other = rng.normal(0, SPREAD, (2, SETS, AT_DEFAULT_BUDGET))
    found = decided(baseline, other + math.log(effect), most=AT_DEFAULT_BUDGET)
    assert share(found, verdict) >= 0.90
    assert share(found, Verdict.SAME) <= 0.01


def test_stopping_at_the_first_interval_that_decides_would_break_the_promise() -> None:
    """Why the k-th look has a level of its own: with 95 % after each round it errs far more often."""
    rng = np.random.default_rng(4)
    baseline, other = rng.normal(0, 0.1, (2, SETS, 40))
    differs = np.zeros(SETS, dtype=bool)
    for count in range(5, 41):
        half = 1.96 * math.sqrt(2 / count) * 0.1
        differs |= np.abs(baseline[:, :count].mean(axis=1) - other[:, :count].mean(axis=1)) > half
    assert differs.mean() > 5 * in_turn.ERROR_RATIO


def test_all_looks_together_may_err_no_more_than_stated() -> None:
    spent = [1 - in_turn.level(look) for look in range(1, 2000)]
    assert 0.99 * in_turn.ERROR_RATIO < sum(spent) <= in_turn.ERROR_RATIO
    assert [in_turn.processes_at(look) for look in range(1, 8)] == [5, 7, 10, 14, 20, 28, 40]


def test_a_steady_drift_meets_both_sides_alike() -> None:
    """Each process takes 1 % longer than the one before."""
    trial, run = Trial(), 0
    assert [in_turn.order("ab", round_) for round_ in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]
    for round_ in range(6):
        for side in in_turn.order((trial.baseline, trial.other), round_):
            side.append(1.01**run)
            run += 1
    assert np.mean(np.log(trial.baseline)) == pytest.approx(np.mean(np.log(trial.other)))


def test_a_trial_looks_when_it_is_time_and_ends_when_it_is_decided() -> None:
    trial = Trial()
    for seconds in (1.0, 1.001, 0.999, 1.0005):
        trial.baseline.append(seconds)
        trial.other.append(1.3 * seconds)
        assert not trial.look()
    assert (trial.looks, trial.comparison) == (0, None)
    trial.baseline.append(0.9995)
    assert not trial.look()  # the other side has four
    trial.other.append(1.3)
    assert trial.look()
    assert (trial.looks, trial.comparison and trial.comparison.verdict) == (1, Verdict.SLOWER)
    before = trial.comparison
    trial.baseline.append(9.0)
    assert trial.look(last=True)
    assert trial.comparison is before  # what has been decided stays


def test_a_trial_that_ends_early_has_no_verdict_and_a_ratio() -> None:
    trial = Trial([1.0, 1.01], [1.3, 1.31])
    assert not trial.look()
    assert not trial.look(last=True)
    assert trial.comparison is not None
    assert trial.comparison.verdict is Verdict.UNCLEAR
    assert trial.comparison.ratio == pytest.approx(1 / 1.3, rel=0.01)
    assert "2 and 2 processes" in trial.comparison.why


def test_an_unclear_trial_goes_on_to_the_next_look() -> None:
    rng = np.random.default_rng(5)
    baseline, other = np.exp(rng.normal(0, 0.2, (2, 7))).tolist()
    trial = Trial(baseline[:5], other[:5])
    assert not trial.look()
    assert trial.looks == 1
    trial.baseline.append(baseline[5])
    trial.other.append(other[5])
    trial.look()
    assert trial.looks == 1
    trial.baseline.append(baseline[6])
    trial.other.append(other[6])
    trial.look()
    assert trial.looks == 2
