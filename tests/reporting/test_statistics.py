"""The promises about numbers: P9 (verdicts) and P10 (intervals) of the house, simulated with fixed seeds."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from stepbench.experiments.warmup.cell import Cell as Warmup
from stepbench.pipeline import config, grids
from stepbench.reporting import statistics
from stepbench.reporting.statistics import Verdict, compare, summarize, verdicts
from stepbench.reporting.two_sample_tests import welch

SETS = 4000


def shares(found):
    return {verdict: float(np.mean(found == verdict.value)) for verdict in Verdict}


def process_medians(rng, spread, processes=5, samples=10, noise=0.03):
    """Logarithms of medians of processes that differ by `spread`, each of samples that differ by `noise`."""
    offsets = rng.normal(0, spread, (SETS, processes, 1))
    return np.log(np.median(np.exp(offsets + rng.normal(0, noise, (SETS, processes, samples))), axis=-1))


# -- P9 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.005, 0.02])
def test_same_against_same_is_same_in_95_percent(spread):
    rng = np.random.default_rng(1)
    found = shares(verdicts(process_medians(rng, spread), process_medians(rng, spread)))
    assert found[Verdict.SAME] >= 0.95
    assert found[Verdict.FASTER] + found[Verdict.SLOWER] <= 0.01


@pytest.mark.parametrize("spread", [0.005, 0.02])
@pytest.mark.parametrize(("effect", "verdict"), [(1.1, Verdict.SLOWER), (1 / 1.1, Verdict.FASTER)])
def test_ten_percent_is_found_in_90_percent(spread, effect, verdict):
    rng = np.random.default_rng(2)
    found = shares(verdicts(process_medians(rng, spread), process_medians(rng, spread) + math.log(effect)))
    assert found[verdict] >= 0.90


def test_the_simulated_number_of_processes_is_the_configured_one():
    settings = config.read(Path(__file__).parents[2] / "config.yaml")
    configured = [products for scales in settings["experiments"].values() for products in scales.values()]
    counts = {len(product["replicate"]) for products in configured for product in products if "replicate" in product}
    assert counts == {inspect.signature(process_medians).parameters["processes"].default} == {statistics.MIN_PROCESSES}


def test_heavy_tails_do_not_make_differences_out_of_nothing():
    rng = np.random.default_rng(3)
    baseline, other = 0.01 * rng.standard_t(2, (2, SETS, 5))
    found = shares(verdicts(baseline, other))
    assert found[Verdict.FASTER] + found[Verdict.SLOWER] <= 0.02


def test_a_spread_too_wide_to_exclude_ten_percent_is_not_called_same():
    rng = np.random.default_rng(4)
    found = shares(verdicts(*rng.normal(0, 0.1, (2, SETS, 5))))
    assert found[Verdict.SAME] < 0.05
    assert found[Verdict.UNCLEAR] > 0.9


def test_rank_tests_on_samples_would_break_the_promise():
    """Why processes and not samples are compared: at 0.5 % between processes a rank test errs far too often."""
    rng = np.random.default_rng(5)
    offsets = rng.normal(0, 0.005, (400, 2, 5, 1))
    samples = (offsets + rng.normal(0, 0.003, (400, 2, 5, 20))).reshape(400, 2, 100)
    wrong = np.mean([scipy.stats.mannwhitneyu(a, b).pvalue < 0.05 for a, b in samples])
    assert wrong > 0.3


# -- P11 ---------------------------------------------------------------------------------------------------------------


def test_a_machine_that_drifts_gives_no_verdict_because_sides_are_measured_in_turn():
    """Each run on this machine takes 1 % longer than the one before; both sides are the same."""
    cells = [Warmup("nano", side, replicate) for side in (0, 1) for replicate in range(5)]

    def verdict(order):
        seconds = {cell: 1.01**run for run, cell in enumerate(order)}
        sides = [[seconds[cell] for cell in cells if cell.warmup == side] for side in (0, 1)]
        return compare(*sides).verdict

    assert verdict(grids.in_rounds(cells)) in (Verdict.SAME, Verdict.UNCLEAR)
    assert verdict(cells) is Verdict.SLOWER  # one side after the other, as the grid lists them


# -- P10 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [6, 7, 10, 25])
@pytest.mark.parametrize("shape", ["lognormal", "exponential"])
def test_the_interval_within_a_process_covers_95_percent(samples, shape):
    rng = np.random.default_rng(samples)
    draw, median = {
        "lognormal": (lambda size: rng.lognormal(0, 1, size), 1.0),
        "exponential": (lambda size: rng.exponential(1, size), math.log(2)),
    }[shape]
    found = [statistics._order_interval(draw(samples)) for _ in range(SETS)]
    assert 0.94 <= np.mean([low <= median <= high for low, high in found]) <= 0.96


def test_the_percentile_bootstrap_would_not_cover_at_seven_samples():
    """Why it is not used, although it is what the field would expect."""
    rng = np.random.default_rng(6)
    sets = rng.lognormal(0, 1, (1500, 7))
    resampled = np.median(sets[:, rng.integers(0, 7, (500, 7))], axis=2)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=1)
    assert np.mean((low <= 1) & (high >= 1)) < 0.91


@pytest.mark.parametrize("processes", [2, 3, 5, 8])
def test_the_interval_over_processes_covers_95_percent(processes):
    rng = np.random.default_rng(processes)
    medians = np.exp(process_medians(rng, 0.02, processes=processes, noise=0.01))
    found = [statistics._process_interval(row) for row in medians]
    assert 0.94 <= np.mean([low <= 1.0 <= high for _, low, high in found]) <= 0.96


def test_the_interval_of_a_ratio_covers_99_percent():
    rng = np.random.default_rng(7)
    baseline, other = process_medians(rng, 0.02) + math.log(1.3), process_medians(rng, 0.01)
    half, _ = welch(baseline, other, statistics.RATIO_LEVEL, statistics.POWER_QUANTILE)
    off = np.abs(baseline.mean(axis=1) - other.mean(axis=1) - math.log(1.3))
    assert 0.985 <= np.mean(off <= half) <= 0.997


# -- summaries ---------------------------------------------------------------------------------------------------------


def test_a_summary_has_the_fields_statistics():
    summary = summarize([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]])
    assert (summary.samples, summary.processes) == (7, 1)
    assert summary.mean == 4.0
    assert summary.std == pytest.approx(2.1602469)
    assert summary.cv_ratio == pytest.approx(2.1602469 / 4)
    assert summary.median == 4.0
    assert summary.iqr == 3.0
    assert 1.0 <= summary.low < 2.0 < 6.0 < summary.high <= 7.0
    assert summary.basis == "within one process"


def test_fewer_than_six_samples_of_one_process_have_no_interval():
    assert (summarize([[1.0, 2.0, 3.0, 4.0, 5.0]]).low, summarize([[1.0]]).high) == (None, None)
    assert summarize([[1.0]]).std is None


def test_several_processes_are_summarized_by_their_medians():
    summary = summarize([[1.0, 1.0, 9.0], [4.0, 4.0, 4.0]])
    assert summary.median == pytest.approx(2.0)
    assert (summary.samples, summary.processes, summary.basis) == (6, 2, "over 2 processes")
    assert summary.low < 1.0 < 4.0 < summary.high  # two processes leave nearly everything open


def test_processes_without_samples_do_not_count():
    assert summarize([[], [1.0, 2.0]]).processes == 1
    with pytest.raises(ValueError, match="at least one sample"):
        summarize([[], []])


def test_a_zero_median_has_no_interval_over_processes():
    summary = summarize([[0.0], [1.0]])
    assert (summary.median, summary.low, summary.high) == (0.5, None, None)


# -- comparisons -------------------------------------------------------------------------------------------------------

BASELINE = [1.0, 1.01, 0.99, 1.005, 0.995]


def test_a_clear_difference_is_named_with_its_direction():
    faster = compare(BASELINE, [value / 2 for value in BASELINE])
    assert faster.verdict is Verdict.FASTER
    assert faster.ratio == pytest.approx(2.0)
    assert faster.low < 2.0 < faster.high
    slower = compare(BASELINE, [value * 2 for value in BASELINE])
    assert slower.verdict is Verdict.SLOWER
    assert slower.ratio == pytest.approx(0.5)
    assert slower.p_value == pytest.approx(2 / math.comb(10, 5))


def test_below_five_processes_a_side_nothing_is_decided():
    four = compare(BASELINE, [0.1, 0.101, 0.099, 0.1])
    assert four.verdict is Verdict.UNCLEAR
    assert four.ratio == pytest.approx(10.0, rel=0.01)
    assert four.low is not None
    assert "5 and 4 processes" in four.why
    one = compare([1.0], [0.5])
    assert (one.ratio, one.low, one.verdict) == (2.0, None, Verdict.UNCLEAR)


def test_a_real_but_negligible_difference_is_same():
    baseline = [1.0, 1.0001, 0.9999, 1.00005, 0.99995]
    found = compare(baseline, [value * 1.005 for value in baseline])
    assert found.low > 0.99
    assert found.high < 1.0  # no chance, and yet not worth a verdict
    assert found.verdict is Verdict.SAME


def test_the_smallest_visible_effect_is_found_with_the_power_it_claims():
    rng = np.random.default_rng(8)
    spread = 0.02
    sides = rng.normal(0, spread, (2, SETS, 5))
    half, visible = welch(*sides, statistics.RATIO_LEVEL, statistics.POWER_QUANTILE)
    assert np.all(visible > half)
    effect = float(np.median(visible))
    found = shares(verdicts(sides[0] + effect, sides[1]))
    assert statistics.POWER <= found[Verdict.FASTER] <= 0.9


def test_equal_medians_are_same():
    found = compare([2.0] * 5, [2.0] * 5)
    assert (found.ratio, found.low, found.high, found.verdict) == (1.0, 1.0, 1.0, Verdict.SAME)


def test_a_zero_median_cannot_be_compared():
    found = compare([1.0] * 5, [0.0] * 5)
    assert found.verdict is Verdict.UNCLEAR
    assert math.isnan(found.ratio)
    assert found.why == "a median is zero"


def test_a_side_without_processes_is_refused():
    with pytest.raises(ValueError, match="at least one process, got 1 and 0"):
        compare([1.0], [])


def test_two_wild_processes_do_not_overflow():
    found = compare([1e-9, 1e9], [1e-9, 1e9])
    assert math.isfinite(found.high)
    assert found.verdict is Verdict.UNCLEAR


def test_compare_and_verdicts_agree():
    rng = np.random.default_rng(9)
    sides = rng.normal(0, 0.03, (2, 40, 5))
    many = verdicts(*sides)
    one = [compare(np.exp(a).tolist(), np.exp(b).tolist()).verdict.value for a, b in zip(*sides, strict=True)]
    assert many.tolist() == one
