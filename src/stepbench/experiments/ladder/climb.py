"""The way up: each point's rungs in their order, what each bought, and the fastest step that is left."""

from __future__ import annotations

import statistics as plain_statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepbench.experiments.ladder.cell import Rung, faster_ratios, settings_of
from stepbench.reporting import statistics
from stepbench.reporting.columns import axis_words
from stepbench.reporting.peaks import Peaks
from stepbench.reporting.points import Group
from stepbench.reporting.sense import flops, moved_bytes
from stepbench.reporting.statistics import Comparison, Summary

AXIS = "rung"
STEP, BASE = "step", "base"  # the names of samples and details: with the rung, and the fastest step before it
PLAIN = settings_of(Rung())


@dataclass(frozen=True)
class Climbed:
    """One rung.

    Attributes:
        group: its point of the grid.
        comparison: how fast a token is with the rung relative to without, or None where it has no numbers.
    """

    group: Group
    comparison: Comparison | None

    @property
    def name(self) -> str:
        """The rung's name in words."""
        return axis_words(self.group.point[AXIS])

    @property
    def kept(self) -> bool:
        """Whether the rungs above are built on it: a token takes less time in the middle process."""
        ratios = faster_ratios(self.group.records)
        return bool(ratios) and plain_statistics.median(ratios) < 1

    def details(self, which: str) -> Mapping[str, Any]:
        """Return the settings of `step` or `base`; none where there is no record."""
        return self.group.records[0].details[which] if self.group.records else {}

    @property
    def settings(self) -> dict[str, Any]:
        """How the step with the rung differs from the plain one."""
        return {key: value for key, value in self.details(STEP).items() if PLAIN.get(key) != value}

    def summary(self, which: str = STEP) -> Summary | None:
        """Return the summary of the whole steps, of `step` or `base`."""
        return self.group.summary(f"{which}_s")

    def tokens(self, which: str = STEP) -> int | None:
        """Return the tokens of one step."""
        found: int | None = self.group.scalar("tokens_per_step" if which == STEP else "base_tokens_per_step")
        return found

    def tokens_per_s(self, which: str = STEP) -> float | None:
        """Return the tokens per second at the median."""
        summary, tokens = self.summary(which), self.tokens(which)
        return tokens / summary.median if summary and tokens and summary.median else None

    def peak_bytes(self, which: str = STEP) -> int | None:
        """Return the peak of memory, measured on a device that counts it, elsewhere predicted for eager steps."""
        prefix = "" if which == STEP else "base_"
        keys = (f"{prefix}peak_memory_bytes", f"{prefix}predicted_peak_bytes")
        return next((found for key in keys if (found := self.group.scalar(key)) is not None), None)

    def seconds_per_token(self, which: str = STEP) -> list[float]:
        """Return the median time of a token in each process."""
        tokens = self.tokens(which) or 1
        return [seconds / tokens for seconds in statistics.medians(self.group.processes(f"{which}_s"))]

    def flops(self, which: str = STEP) -> float | None:
        """Return the FLOPs of one step."""
        whole, tokens, own = flops(self.group), self.tokens(), self.tokens(which)
        return whole * own / tokens if whole and tokens and own else None

    def mfu_ratio(self, peaks: Peaks, which: str = STEP) -> float | None:
        """Return the FLOPs of the step over its time and the measured peak of its dtype."""
        work, summary = self.flops(which), self.summary(which)
        peak = peaks.flops_per_s(self.details(which).get("precision", "fp32"))
        return work / summary.median / peak if work and summary and summary.median and peak else None

    def least_s(self, peaks: Peaks, which: str = STEP) -> float | None:
        """Return the least time of a step: its least products at the measured peak, then the optimizer's bytes' time.

        None of a model of the user's own that has an attention of its own: nobody knows the least products.
        """
        work = self.group.scalar("least_flops" if which == STEP else "base_least_flops")
        parameters, settings = self.group.scalar("parameters"), self.details(which)
        peak = peaks.flops_per_s(settings.get("precision", "fp32"))
        if not (work and parameters and peak and peaks.copy):
            return None
        moved = moved_bytes(settings.get("optimizer", "adamw_loop"), settings.get("parameter_dtype", "fp32"))
        return work / peak + moved * parameters / peaks.copy.per_s

    def distance_ratio(self, peaks: Peaks, which: str = STEP) -> float | None:
        """Return the time of a step over its least time."""
        least, summary = self.least_s(peaks, which), self.summary(which)
        return summary.median / least if least and summary else None


@dataclass(frozen=True)
class Ladder:
    """The rungs of one point, from the lowest."""

    rungs: tuple[Climbed, ...]

    @property
    def foot(self) -> Climbed | None:
        """The lowest rung that was measured on the plain step, whose `base` that is."""
        return next((each for each in self.rungs if each.group.records and not each.details("kept")), None)

    @property
    def best(self) -> Climbed | None:
        """The highest rung that was kept."""
        return next((each for each in reversed(self.rungs) if each.kept), None)

    @property
    def overall(self) -> Comparison | None:
        """How fast a token is in the best step relative to the plain one."""
        return self.over_plain(self.best) if self.best else None

    def over_plain(self, rung: Climbed) -> Comparison | None:
        """Return how fast a token is with a rung relative to the plain step, or None where one has no numbers."""
        sides = self.foot.seconds_per_token(BASE) if self.foot else [], rung.seconds_per_token()
        return statistics.compare(*sides) if all(sides) else None


def ladders(groups: Sequence[Group]) -> list[Ladder]:
    """Return the ladder of each point, in the order of the grid."""
    found: dict[tuple[Any, ...], list[Climbed]] = {}
    for group in groups:
        rest = tuple(value for axis, value in group.point.items() if axis != AXIS)
        climbed = Climbed(group, None)
        sides = climbed.seconds_per_token(BASE), climbed.seconds_per_token()
        comparison = statistics.compare(*sides) if all(sides) else None
        found.setdefault(rest, []).append(Climbed(group, comparison))
    return [Ladder(tuple(rungs)) for rungs in found.values()]
