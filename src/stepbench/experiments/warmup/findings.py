"""Findings about warm-up."""

from __future__ import annotations

from collections.abc import Mapping

from stepbench.reporting import statistics, units
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, plural, said
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group
from stepbench.reporting.statistics import Summary
from stepbench.reporting.steps import phase_sums

SETTLED_WITHIN = 0.05  # of the mean after the most steps of warm-up

Known = Mapping[int, tuple[Group, Summary]]  # number of warm-up steps -> the point and its sums of phases


def find(results: Results) -> list[Finding]:
    """Return what the first step costs, and after how many warm-up steps the mean stays near its last value."""
    groups = results.groups()
    found = []
    for size in dict.fromkeys(group.point["size"] for group in groups):
        known = {
            group.point["warmup"]: (group, sums)
            for group in groups
            if group.point["size"] == size and (sums := _sums(group))
        }
        if len(known) > 1:
            found += [*_first_step(size, known), *_without(size, known), *_settled(size, known)]
    return found


def _sums(group: Group) -> Summary | None:
    """Return the summary of the sums of phases, which are the times that every sentence here is about."""
    sums = phase_sums(group)
    return statistics.summarize(sums) if sums else None


def _evidence(*groups: Group) -> Evidence:
    """Return the evidence of a sentence about one point, or one that compares the first with the last."""
    sides = [statistics.medians(phase_sums(group)) for group in (groups[0], groups[-1])]
    return Evidence.of(groups, _sums, comparison=statistics.compare(sides[0], sides[1]) if len(groups) > 1 else None)


def _first_step(size: str, known: Known) -> list[Finding]:
    group, settled = known[min(known)][0], known[max(known)][1].median
    if group.point["warmup"] != 0 or not settled:
        return []
    first = statistics.summarize([[samples[0]] for samples in phase_sums(group)]).median
    text = f"The first step of {size} takes {units.seconds(first)}, {units.ratio(first / settled)} a settled one."
    return said("first step", [text], _evidence(group, known[max(known)][0]))


def _without(size: str, known: Known) -> list[Finding]:
    least, most = min(known), max(known)
    worst, settled = known[least][1], known[most][1]
    spread = f", its standard deviation {units.ratio(worst.std / settled.std)}" if worst.std and settled.std else ""
    before = f"With {plural(least, 'step')} of" if least else "Without"
    text = (
        f"{before} warm-up the mean step of {size} is {units.ratio(worst.mean / settled.mean)} that after {most} "
        f"warm-up steps{spread}."
    )
    return said("without warm-up", [text], _evidence(known[least][0], known[most][0]))


def _settled(size: str, known: Known) -> list[Finding]:
    counts, most, within = sorted(known), max(known), f"{100 * SETTLED_WITHIN:g} %"
    near = [abs(known[count][1].mean / known[most][1].mean - 1) <= SETTLED_WITHIN for count in counts]
    enough = next(count for index, count in enumerate(counts) if all(near[index:]))
    text = (
        f"From {plural(enough, 'warm-up step')} on the mean step of {size} stays within {within} of that after {most}."
    )
    if enough == most:
        text = (
            f"With fewer than {most} warm-up steps the mean step of {size} is not within {within} of that after "
            f"{most}; {most} may not be enough either."
        )
    return said("settled", [text], _evidence(*(known[count][0] for count in counts)))
