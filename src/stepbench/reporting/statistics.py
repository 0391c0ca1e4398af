"""Statistics of samples: summaries, comparisons, warnings.

Samples of one process are not independent: a process may have got a slower piece of memory than the next, and all its
samples share that. Two rules follow; `tests/reporting/test_statistics.py` checks their numbers.

- An interval over several processes uses the median of each: Student's t on the logarithms. Over three processes it
  covers 95 % where the percentile bootstrap of the median covers 75 %, over five 95 % where the bootstrap covers 94 %.
- An interval within a single process comes from the order of its samples (Hettmansperger and Sheather): with the seven
  samples of the default protocol it covers 95 % where the percentile bootstrap covers 88 %. It says nothing about
  another process, so its `basis` is part of the result.

A comparison is decided by a 99 % interval, because a report makes many of them, and never with fewer than five
processes a side. For a difference two tests must agree: Welch's t on the logarithms, which gives that interval, and the
exact permutation test, which assumes no distribution.

Source: Hettmansperger and Sheather 1986, Confidence intervals based on interpolated order statistics, Statistics &
Probability Letters 4, equation 2.1. Welch 1947, Biometrika 34.
"""

from __future__ import annotations

import enum
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepbench.reporting import marks, two_sample_tests
from stepbench.reporting.marks import Mark
from stepbench.reporting.two_sample_tests import Array

INTERVAL_LEVEL = 0.95  # of the median
RATIO_LEVEL = 0.99  # of a ratio, and of the verdict that rests on it
# The permutation test may err this many times as often as the interval: five and five split in 252 ways, and at 2 % the
# sides may overlap by one neighbour, not two.
PERMUTATION_ERRORS = 2
POWER = 0.80  # with which the smallest visible effect is found; 0.82 in simulation at five processes a side, because
POWER_QUANTILE = 0.90  # … its scatter is itself an estimate, and this quantile of Student's t makes up for that
MIN_PROCESSES = 5  # a side
SAME_WITHIN = 0.10  # SAME needs an interval that excludes an effect as large as this
NEGLIGIBLE = 0.01  # a real difference below this is SAME: where code lies in memory does as much


class Verdict(enum.StrEnum):
    """How another variant compares with the baseline."""

    FASTER = "FASTER"
    SLOWER = "SLOWER"
    SAME = "SAME"
    UNCLEAR = "UNCLEAR"


@dataclass(frozen=True)
class Summary:
    """The statistics of the samples of one cell and its replicates.

    Attributes:
        samples: how many there are, of all processes.
        processes: how many processes they come from.
        mean: of all samples.
        std: of all samples, with n - 1 in the denominator; None for one sample.
        cv_ratio: `std` over `mean`.
        median: of one process, or the geometric mean of the processes' medians, which is what a ratio compares.
        iqr: from the first to the third quartile of all samples.
        low, high: the 95 % interval of `median`; None where there are too few samples (below six in one process).
        basis: what the interval covers, in words.
        marks: the warnings about the samples.
    """

    samples: int
    processes: int
    mean: float
    std: float | None
    cv_ratio: float | None
    median: float
    iqr: float
    low: float | None
    high: float | None
    basis: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Comparison:
    """How much faster another variant is than the baseline.

    Attributes:
        ratio: the baseline's time over the other's: above 1 the other is faster.
        low, high: the interval of `ratio`, of 99 % or the level asked for; None with fewer than two processes a side.
        p_value: of the exact permutation test; None with fewer than two processes a side.
        visible_ratio: the smallest effect that 4 of 5 runs like this would have found; None likewise.
        processes: of the baseline and of the other.
        verdict: of the other against the baseline.
        why: the reason of the verdict, in words.
    """

    ratio: float
    low: float | None
    high: float | None
    p_value: float | None
    visible_ratio: float | None
    processes: tuple[int, int]
    verdict: Verdict
    why: str

    @property
    def time_ratio(self) -> tuple[float | None, float | None, float | None]:
        """The other's time over the baseline's, and its interval; None for what is not known."""
        bounds = (self.ratio if math.isfinite(self.ratio) else None, self.high, self.low)
        found, low, high = (1 / bound if bound else None for bound in bounds)
        return found, low, high


def summarize(processes: Sequence[Sequence[float]]) -> Summary:
    """Return the summary of the samples of one or more processes, one list each, in run order.

    Raises:
        ValueError: there is no sample.
    """
    groups = tuple(tuple(samples) for samples in processes if len(samples))
    if not groups:
        raise ValueError("`processes` must hold at least one sample, got none")
    return _summarize(groups)


@functools.lru_cache(maxsize=16_384)  # a report asks for the same samples in many tables, figures and findings
def _summarize(processes: tuple[tuple[float, ...], ...]) -> Summary:
    groups = [np.array(samples, dtype=np.float64) for samples in processes]
    pooled = np.concatenate(groups)
    mean = float(pooled.mean())
    std = float(pooled.std(ddof=1)) if pooled.size > 1 else None
    first, third = np.quantile(pooled, [0.25, 0.75])
    if len(groups) == 1:
        median, basis = float(np.median(pooled)), "within one process"
        low, high = _order_interval(pooled)
    else:
        basis = f"over {len(groups)} processes"
        median, low, high = _process_interval(np.array([float(np.median(samples)) for samples in groups]))
    return Summary(
        samples=pooled.size,
        processes=len(groups),
        mean=mean,
        std=std,
        cv_ratio=std / mean if std is not None and mean > 0 else None,
        median=median,
        iqr=float(third - first),
        low=low,
        high=high,
        basis=basis,
        marks=marks.find(groups),
    )


def medians(processes: Sequence[Sequence[float]]) -> list[float]:
    """Return the median of each process, which is what `compare` takes."""
    return [float(np.median(samples)) for samples in processes if len(samples)]


def compare(baseline: Sequence[float], other: Sequence[float], level: float = RATIO_LEVEL) -> Comparison:
    """Compare the process medians of two variants.

    Args:
        baseline: the median of each process of the baseline, in seconds.
        other: the same of the other variant.
        level: of the interval that the verdict rests on.

    Raises:
        ValueError: a side is empty.
    """
    counts = (len(baseline), len(other))
    if min(counts) == 0:
        raise ValueError(f"each side must have at least one process, got {counts[0]} and {counts[1]}")
    sides = [np.asarray(side, dtype=np.float64) for side in (baseline, other)]
    if any((side <= 0).any() for side in sides):
        return Comparison(math.nan, None, None, None, None, counts, Verdict.UNCLEAR, "a median is zero")
    base, rest = (np.log(side) for side in sides)
    difference = float(base.mean() - rest.mean())
    if min(counts) < 2:
        return Comparison(math.exp(difference), None, None, None, None, counts, Verdict.UNCLEAR, _too_few(counts))
    half, visible = (float(value) for value in two_sample_tests.welch(base, rest, level, POWER_QUANTILE))
    p_value = float(two_sample_tests.permutation_p(base, rest))
    verdict = Verdict.UNCLEAR
    if min(counts) >= MIN_PROCESSES:
        verdict = Verdict(str(verdicts(base, rest, level)))
    bounds = (_exp(difference - half), _exp(difference + half))
    why = _too_few(counts) if min(counts) < MIN_PROCESSES else _WHY[verdict]
    return Comparison(math.exp(difference), *bounds, p_value, _exp(visible), counts, verdict, why)


def verdicts(baseline: Array, other: Array, level: float = RATIO_LEVEL) -> NDArray[np.str_]:
    """Return a verdict for each row of logarithms of process medians, all rows at once.

    Args:
        baseline: `[..., processes]`, natural logarithms.
        other: `[..., processes]`.
        level: of the intervals.
    """
    difference = np.asarray(baseline.mean(axis=-1) - other.mean(axis=-1))
    half, _ = two_sample_tests.welch(baseline, other, level, POWER_QUANTILE)
    excludes_one = np.abs(difference) > half
    separated = np.zeros(difference.shape, dtype=bool)
    if excludes_one.any():  # elsewhere the permutation test, which is slow, decides nothing
        p_values = two_sample_tests.permutation_p(baseline[excludes_one], other[excludes_one])
        separated[excludes_one] = p_values <= PERMUTATION_ERRORS * (1 - level) + 1e-12
    real = excludes_one & separated & (np.abs(difference) > math.log1p(NEGLIGIBLE))
    tight = np.abs(difference) + half < math.log1p(SAME_WITHIN)
    doubtful = excludes_one & ~separated
    return np.select(
        [real & (difference > 0), real, tight & ~doubtful],
        [Verdict.FASTER.value, Verdict.SLOWER.value, Verdict.SAME.value],
        Verdict.UNCLEAR.value,
    )


def _order_interval(samples: Array) -> tuple[float | None, float | None]:
    """Return an interval of the median between two order statistics, interpolated so that it covers 95 %."""
    n, ordered = samples.size, np.sort(samples)
    k, weight = _order_weight(n)
    if k == 0:
        return None, None
    low = (1 - weight) * ordered[k - 1] + weight * ordered[k]
    high = (1 - weight) * ordered[n - k] + weight * ordered[n - k - 1]
    return float(low), float(high)


@functools.cache
def _order_weight(n: int) -> tuple[int, float]:
    """Return at which order statistic (from 1) the interval begins, and how far it goes to the next inner one."""
    # The chance that fewer than k of n fall below the median, on both sides.
    outside = itertools.accumulate(math.comb(n, below) for below in range(n // 2))
    coverage = [1 - 2 * (count / 2**n) for count in outside]
    k = sum(each >= INTERVAL_LEVEL for each in coverage)  # the innermost pair (k-th from below and above) that covers
    if k == 0:
        return 0, 0.0
    inner = coverage[k] if k < len(coverage) else 0.0
    share = (coverage[k - 1] - INTERVAL_LEVEL) / (coverage[k - 1] - inner)
    return k, (n - k) * share / (k + (n - 2 * k) * share)


def _process_interval(process_medians: Array) -> tuple[float, float | None, float | None]:
    if (process_medians <= 0).any():
        return float(np.median(process_medians)), None, None
    logs, n = np.log(process_medians), process_medians.size
    half = float(two_sample_tests.student(n - 1, (1 + INTERVAL_LEVEL) / 2)) * float(logs.std(ddof=1)) / math.sqrt(n)
    center = float(logs.mean())
    return math.exp(center), _exp(center - half), _exp(center + half)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))  # two processes a side may leave room for more than a float holds


def _too_few(counts: tuple[int, int]) -> str:
    sides = "one process each" if counts == (1, 1) else f"{counts[0]} and {counts[1]} processes"
    return f"{sides}; a verdict needs {MIN_PROCESSES} a side"


_WHY = {
    Verdict.FASTER: "the interval lies above 1, and the permutation test agrees",
    Verdict.SLOWER: "the interval lies below 1, and the permutation test agrees",
    Verdict.SAME: f"the interval excludes effects of {100 * SAME_WITHIN:.0f} % or more",
    Verdict.UNCLEAR: "the interval is too wide, or the two tests disagree",
}
