"""The two tests of a difference between two sides: Welch's t, which gives an interval, and the exact permutation test.

Source: Welch 1947, Biometrika 34. Both take many rows of processes at once, so that a test can simulate thousands.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MAX_PERMUTATIONS = 20_000  # up to eight a side all splits are counted, beyond that this many are drawn


def welch(baseline: Array, other: Array, level: float, power_quantile: float) -> tuple[Array, Array]:
    """Return half the width of the interval of the difference of means, and the difference that is visible.

    Args:
        baseline: `[..., processes]`.
        other: `[..., processes]`.
        level: of the interval.
        power_quantile: of Student's t, which a visible difference lies beyond the interval.
    """
    parts = [side.var(axis=-1, ddof=1) / side.shape[-1] for side in (baseline, other)]
    freedoms = [side.shape[-1] - 1 for side in (baseline, other)]
    variance = parts[0] + parts[1]
    denominator = parts[0] ** 2 / freedoms[0] + parts[1] ** 2 / freedoms[1]
    # All medians equal on both sides (a fake clock): no variance, and any freedom will do.
    freedom = np.where(denominator > 0, variance**2 / np.where(denominator > 0, denominator, 1), sum(freedoms))
    half = student(freedom, (1 + level) / 2) * np.sqrt(variance)
    return half, half + student(freedom, power_quantile) * np.sqrt(variance)


def permutation_p(baseline: Array, other: Array) -> Array:
    """Return the p-value of each row's difference of means among all ways to split its processes."""
    import scipy.stats  # late: it takes a second, and few tables compare

    def difference(a: Array, b: Array, axis: int) -> Array:
        return a.mean(axis=axis) - b.mean(axis=axis)

    result = scipy.stats.permutation_test(
        (baseline, other),
        difference,
        vectorized=True,
        axis=-1,
        n_resamples=_MAX_PERMUTATIONS,
        batch=64,
        rng=np.random.default_rng(0),
    )
    return np.asarray(result.pvalue, dtype=np.float64)


def student(freedom: float | Array, quantile: float) -> Array:
    """Return a quantile of Student's t."""
    import scipy.special  # late, as scipy.stats: it takes 0.2 s, and few tables compare

    return np.asarray(scipy.special.stdtrit(freedom, quantile), dtype=np.float64)  # a hundred times as fast as t.ppf
