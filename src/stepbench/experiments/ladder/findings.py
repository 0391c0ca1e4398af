"""Findings about the ladder."""

from __future__ import annotations

from stepbench.experiments.ladder import profiled
from stepbench.experiments.ladder.climb import AXIS, BASE, STEP, Ladder, ladders
from stepbench.reporting import units
from stepbench.reporting.columns import axis_words, where
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, listing, said
from stepbench.reporting.frames import Results

OPERATORS = 3  # that are named


def find(results: Results) -> list[Finding]:
    """Return for each point the fastest step, what was left out, and the distance that is left with what fills it."""
    every = [each for each in ladders(results.groups()) if each.foot is not None]
    firsts = [each.rungs[0].group for each in every]
    found = []
    for each in every:
        place = where(each.rungs[0].group, firsts, AXIS)
        found += [*_fastest(each, place), *_left_out(each, place), *_distance(each, place, results)]
    return found


def _fastest(ladder: Ladder, place: str) -> list[Finding]:
    foot, best, overall = ladder.foot, ladder.best, ladder.overall
    if foot is None:
        return []
    if best is None or overall is None:
        text = f"No measure makes the plain step faster ({place})."
        return said("fastest step", [text], Evidence.of([foot.group], "base_s"))
    summary = best.summary()
    assert summary is not None  # noqa: S101 - a kept rung has numbers
    settings = listing([f"{axis_words(key)} {axis_words(value)}" for key, value in best.settings.items()], most=8)
    text = (
        f"The fastest step ({place}) has {settings}: {units.seconds(summary.median)}, and a token at "
        f"{units.ratio(overall.ratio, overall.low, overall.high)} the speed of the plain step."
    )
    return said("fastest step", [text], Evidence.of([foot.group, best.group], "step_s", comparison=overall))


def _left_out(ladder: Ladder, place: str) -> list[Finding]:
    """Say which rungs bought nothing, and which could not run."""
    slower = [each for each in ladder.rungs if each.comparison is not None and not each.kept]
    told = [f"{each.name} ({units.ratio(each.comparison.ratio)})" for each in slower if each.comparison]
    found = []
    if told:
        text = f"Left out of what follows, because a token is not faster with it ({place}): {listing(told, most=8)}."
        found += said("left out", [text], Evidence.of([each.group for each in slower], "step_s"))
    return found


def _distance(ladder: Ladder, place: str, results: Results) -> list[Finding]:
    """Say how far the fastest step is from what the machine's peaks allow, and what a profiled step is made of."""
    best = ladder.best or ladder.foot
    if best is None:
        return []
    which = STEP if ladder.best else BASE
    ratio, least = best.distance_ratio(results.peaks, which), best.least_s(results.peaks, which)
    if ratio is None or least is None:
        return []
    text = (
        f"The fastest step ({place}) takes {units.ratio(ratio)} the {units.seconds(least)} that its products take at "
        "the measured peak and the optimizer's bytes at the rate of a copy."
    )
    groups = [best.group]
    if (found := profiled.find(results, best.group.point["size"])) is not None:
        parts = [f"{each.name} {units.percent(each.share_ratio)}" for each in found.operators[:OPERATORS]]
        point = found.group.point
        step = f"context {point['context']}, batch {point['batch']}, {point['precision']}"
        text += f" Of the operators' time in a profiled eager step ({step}) most goes to {listing(parts)}."
        groups.append(found.group)
    return said("distance", [text], Evidence.of(groups, "step_s"))
