"""Marks: what a reader should know about a number. A mark never removes a sample.

Here are the marks that samples carry by themselves, and what every mark means. Those of a record's environment are in
`stepbench.reporting.conditions`, those of comparing numbers with each other in `stepbench.reporting.sense`.

Source of the drift: Mann 1945, Nonparametric tests against trend, Econometrica 13 (Kendall's test against time, with
its normal approximation and the correction for continuity); Sen 1968, Estimates of the regression coefficient based on
Kendall's tau, JASA 63 (the median of all pairs' slopes).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NOISY_CV = 0.10
OUTLIER_DEVIATIONS = 5.0  # robust standard deviations from the median …
OUTLIER_RATIO = 0.10  # … and at least this far from it, or a very quiet cell would have an outlier in each dozen
DRIFT_P = 0.01  # of Kendall's test against the order of the run
DRIFT_RATIO = 0.05  # from the first sample to the last, by the Theil-Sen slope

# What each mark means, in plain words, and the grade of a cell that carries it.
MEANING = {
    "outliers": f"single samples lie {OUTLIER_DEVIATIONS:.0f} robust standard deviations and "
    f"{100 * OUTLIER_RATIO:.0f} % from the median or further; they are kept and counted",
    "noisy": f"the samples scatter, with a standard deviation above {100 * NOISY_CV:.0f} % of their mean (CV)",
    "drifting": f"the samples rise or fall over the run by more than {100 * DRIFT_RATIO:.0f} %, and not by chance "
    f"(Kendall's test, p below {DRIFT_P}): it had not settled",
    "short": "what was timed is so short that the clock's own cost and resolution are in it",
    "throttled": "the device kept its clocks below what it can do, because of heat or power",
    "disturbed": "other processes, or other guests of the same host, used the device or its cores meanwhile",
    "parts and whole differ": "what should add up does not: phases and step, or computation, communication and step",
    "impossible": "the number is beyond what the machine can do, or beyond the whole of which it is a part; "
    "do not use it",
    "wrong": "what was timed did not compute what it should; there is no number, or do not use it",
}
_GRADE = {"impossible": "D", "wrong": "D", "throttled": "C", "disturbed": "C", "parts and whole differ": "C"}
GRADES = (
    "A cell's grade follows from its marks: A has none; B has marks of its samples alone (outliers, noisy, drifting, "
    "short); C was throttled or disturbed, or its parts and its whole differ; D is impossible or wrong. No sample is "
    "dropped, whatever the grade."
)

_MAD_TO_STD = 1.4826


@dataclass(frozen=True)
class Mark:
    """Something that a reader should know about a number: `kind` is a word, `detail` says how much."""

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} ({self.detail})" if self.detail else self.kind


def grade(kinds: Iterable[str]) -> str:
    """Return the grade of a cell with marks of these kinds: A, B, C or D, the worst that any of them gives."""
    return max((_GRADE.get(kind, "B") for kind in kinds), default="A")


def fatal(found: Iterable[Mark]) -> list[Mark]:
    """Return the marks that hold for every number, bytes and sums too, which no load and no clock changes."""
    return [mark for mark in found if grade([mark.kind]) == "D"]


def kinds_in(text: str) -> list[str]:
    """Return the kinds of marks that a row's text names, in the order of `MEANING`."""
    return [kind for kind in MEANING if re.search(rf"\b{kind}\b", text)]


def legend(kinds: Iterable[str]) -> str:
    """Return a sentence or a few that say what these kinds of marks mean."""
    wanted = set(kinds)
    return "; ".join(f"{kind}: {meaning}" for kind, meaning in MEANING.items() if kind in wanted)


def find(groups: Sequence[Array]) -> tuple[Mark, ...]:
    """Return the marks of samples, one array for each process: outliers, drift, noise. Nothing is ever dropped."""
    found = []
    outliers = sum(int(_outliers(samples).sum()) for samples in groups)
    if outliers:
        found.append(Mark("outliers", f"{outliers} of {sum(samples.size for samples in groups)}"))
    drifts = [drift for samples in groups if (drift := _drift(samples)) is not None]
    if drifts:
        where = f" in {len(drifts)} of {len(groups)} processes" if len(groups) > 1 else ""
        found.append(Mark("drifting", f"{max(drifts, key=abs):+.0%}{where}".replace("%", " %")))
    pooled = np.concatenate(list(groups))
    if pooled.size > 1 and pooled.mean() > 0 and (cv := pooled.std(ddof=1) / pooled.mean()) > NOISY_CV:
        found.append(Mark("noisy", f"CV {100 * cv:.0f} %"))
    return tuple(found)


def _outliers(samples: Array) -> NDArray[np.bool_]:
    distance = np.abs(samples - np.median(samples))
    robust_std = _MAD_TO_STD * float(np.median(distance))
    return (distance > OUTLIER_DEVIATIONS * robust_std) & (distance > OUTLIER_RATIO * float(np.median(samples)))


def _drift(samples: Array) -> float | None:
    """Return the change from the first sample to the last, relative to the median, if it is a trend and not chance."""
    if (
        samples.size < 5 or np.ptp(samples) == 0 or np.median(samples) <= 0
    ):  # four cannot reach 1 %, whatever their order
        return None
    n = samples.size
    earlier, later = np.triu_indices(n, k=1)
    rises = samples[later] - samples[earlier]
    score = abs(int(np.sign(rises).sum()))
    z = max(score - 1, 0) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    if math.erfc(z / math.sqrt(2)) > DRIFT_P:
        return None
    change = float(np.median(rises / (later - earlier))) * (n - 1) / float(np.median(samples))
    return change if abs(change) > DRIFT_RATIO else None
