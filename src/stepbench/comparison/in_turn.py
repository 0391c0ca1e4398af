"""Variants that are measured process by process in turn, and the rule that ends it.

Two variants that are measured one after the other differ on a machine that drifts. So each round measures every variant
once, and every second round in reverse order (a b, b a, a b, …): a steady drift meets both alike.

Whoever looks at an interval after each round and stops as soon as it decides will find differences that are none. So
there are looks, at 5, 7, 10, 14, 20, … processes a side, and the k-th look may err with a probability of
`ERROR_RATIO` / (k (k + 1)): the first with half of it, and all together, however many, with no more than `ERROR_RATIO`.
A look gives the verdict of `stepbench.reporting.statistics` with an interval of that level; UNCLEAR means go on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from stepbench.reporting import statistics
from stepbench.reporting.statistics import MIN_PROCESSES, Comparison, Verdict

ERROR_RATIO = 0.02  # of all looks together, to call two equal variants different
LOOKS_GROW_BY = math.sqrt(2)  # looks that come more often would each have to be more certain

Variant = TypeVar("Variant")


def order(variants: Sequence[Variant], round_: int) -> list[Variant]:
    """Return the variants in the order in which a round measures them; rounds are counted from 0."""
    return list(variants) if round_ % 2 == 0 else list(reversed(variants))


def processes_at(look: int) -> int:
    """Return how many processes a side there are at a look; looks are counted from 1."""
    return round(MIN_PROCESSES * LOOKS_GROW_BY ** (look - 1))


def level(look: int) -> float:
    """Return the level of the interval at a look."""
    return 1 - ERROR_RATIO / (look * (look + 1))


@dataclass
class Trial:
    """Two variants while they are measured.

    Attributes:
        baseline, other: the median of each process so far, in seconds.
        looks: how many there were.
        comparison: what the last look gave; None before the first.
    """

    baseline: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)
    looks: int = 0
    comparison: Comparison | None = None

    @property
    def decided(self) -> bool:
        """Whether a look has given a verdict."""
        return self.comparison is not None and self.comparison.verdict is not Verdict.UNCLEAR

    @property
    def processes(self) -> int:
        """How many processes the side with fewer of them has."""
        return min(len(self.baseline), len(self.other))

    def look(self, *, last: bool = False) -> bool:
        """Look if it is time to, and return whether the trial is decided.

        Args:
            last: whether nothing will be measured after this, so that it is time in any case.
        """
        due = self.processes >= processes_at(self.looks + 1)
        if not self.decided and self.processes and (due or last):
            self.looks += 1
            self.comparison = statistics.compare(self.baseline, self.other, level(self.looks))
        return self.decided
