"""Warnings about a number, as values. A warning never removes a sample.

This module has the warnings that follow from the samples themselves, and the meaning of every kind. Those that follow
from a record's environment are in `stepbench.reporting.conditions`; those that follow from comparing numbers with each
other are in `stepbench.reporting.sense`.

Source of the drift: Mann 1945, Nonparametric tests against trend, Econometrica 13 (Kendall's test against time, with
its normal approximation and the correction for continuity); Sen 1968, Estimates of the regression coefficient based on
Kendall's tau, JASA 63 (the median of all pairs' slopes).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NOISY_CV = 0.10
OUTLIER_DEVIATIONS = 5.0  # robust standard deviations from the median …
OUTLIER_RATIO = 0.10  # … and at least this far from it, or a very quiet cell would have an outlier in each dozen
DRIFT_P = 0.01  # of Kendall's test against the order of the run
DRIFT_RATIO = 0.05  # from the first sample to the last, by the Theil-Sen slope

# What each kind of warning means.
MEANING = {
    "outliers": f"single samples lie at least {OUTLIER_DEVIATIONS:.0f} robust standard deviations and "
    f"{100 * OUTLIER_RATIO:.0f} % from the median; they are kept and counted",
    "noisy": f"the standard deviation of the samples is above {100 * NOISY_CV:.0f} % of their mean (CV)",
    "drifting": f"the samples rise or fall by more than {100 * DRIFT_RATIO:.0f} % over the run, and not by chance "
    f"(Kendall's test, p below {DRIFT_P}); the measurement had not settled",
    "short": "the timed region is so short that the clock's own cost and resolution matter",
    "launch bound": "the host was hardly done with launching when the device had worked; the time is the host's, and a "
    "faster device would not be faster",
    "throttled": "the device lowered its clocks because of heat or power, or a container's quota of cores stopped the "
    "process",
    "on battery": "the machine ran on its battery, which lowers its clocks; plug it in and measure again",
    "disturbed": "other processes, or other guests of the same host, used the device or its cores meanwhile",
    "paging": "the operating system's work on new pages of memory took more than 5 % of the timed regions; on CUDA, "
    "the allocator asked the driver for memory meanwhile",
    "parts and whole differ": "the phases do not add up to the step, or communication and computation do not",
    "impossible": "the number exceeds a limit of the machine, or a part exceeds its whole; do not use it",
    "wrong": "the computed result is wrong; there is no number, or do not use it",
}
_QUALITY = {
    "impossible": "D",
    "wrong": "D",
    "throttled": "C",
    "on battery": "C",
    "disturbed": "C",
    "parts and whole differ": "C",
}
QUALITIES = (
    "The quality of a number follows from its warnings. A: none. B: its samples scatter, drift, have outliers, are "
    "short, launch bound, or contain paging. C: the device was throttled, on battery or disturbed, or parts and "
    "whole differ. D: impossible or wrong. No sample is dropped, whatever the quality."
)

_MAD_TO_STD = 1.4826


@dataclass(frozen=True)
class Mark:
    """A warning: what a reader should know about a number.

    Attributes:
        kind: a key of `MEANING`.
        detail: how much, in a few words, such as `CV 12 %`.
        of: what of the row it is about, where a row has several numbers: a phase, a side of a comparison, a machine.
    """

    kind: str
    detail: str = ""
    of: str = ""

    def __str__(self) -> str:
        return text([self])


def about(of: str, found: Iterable[Mark]) -> list[Mark]:
    """Return the warnings as those of one part of a row."""
    return [replace(mark, of=" ".join(filter(None, (of, mark.of)))) for mark in found]


def text(found: Iterable[Mark]) -> str:
    """Return warnings in words, one kind after the other, such as `noisy (forward CV 12 %, step CV 14 %)`."""
    kinds: dict[str, dict[str, None]] = {}
    for mark in found:
        kinds.setdefault(mark.kind, {})[" ".join(filter(None, (mark.of, mark.detail)))] = None
    details = {kind: ", ".join(filter(None, parts)) for kind, parts in kinds.items()}
    return "; ".join(f"{kind} ({detail})" if detail else kind for kind, detail in details.items())


def quality(found: Iterable[Mark]) -> str:
    """Return the quality of a number with these warnings: A, B, C or D, the worst that any of them gives."""
    return max((_QUALITY.get(mark.kind, "B") for mark in found), default="A")


def fatal(found: Iterable[Mark]) -> list[Mark]:
    """Return the warnings that hold for every number of a point, bytes and sums too, which no load or clock changes."""
    return [mark for mark in found if quality([mark]) == "D"]


def legend(found: Iterable[Mark]) -> str:
    """Return what the kinds of these warnings mean, in the order of `MEANING`."""
    wanted = {mark.kind for mark in found}
    return "; ".join(f"{kind}: {meaning}" for kind, meaning in MEANING.items() if kind in wanted)


def find(groups: Sequence[Array]) -> tuple[Mark, ...]:
    """Return the warnings that samples give, one array for each process: outliers, drift, noise."""
    found = []
    outliers = sum(int(_outliers(samples).sum()) for samples in groups)
    if outliers:
        found.append(Mark("outliers", f"{outliers} of {sum(samples.size for samples in groups)}"))
    drifts = [drift for samples in groups if (drift := _drift(samples)) is not None]
    if drifts:
        where = f" in {len(drifts)} of {len(groups)} processes" if len(groups) > 1 else ""
        found.append(Mark("drifting", f"{100 * max(drifts, key=abs):+.0f} %{where}"))
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
    # Four samples cannot reach 1 %, whatever their order.
    if samples.size < 5 or np.ptp(samples) == 0 or np.median(samples) <= 0:
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
