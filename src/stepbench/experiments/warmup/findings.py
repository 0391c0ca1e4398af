"""Findings about warm-up."""

from __future__ import annotations

from collections.abc import Mapping

from stepbench.reporting import statistics, units
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
            group.point["warmup"]: (group, statistics.summarize(sums))
            for group in groups
            if group.point["size"] == size and (sums := phase_sums(group))
        }
        if len(known) > 1:
            sentences = [*_first_step(size, known), *_without(size, known), *_settled(size, known)]
            found += said("warm-up", sentences, [group for group, _ in known.values()])
    return found


def _first_step(size: str, known: Known) -> list[str]:
    group, settled = known[min(known)][0], known[max(known)][1].median
    if group.point["warmup"] != 0 or not settled:
        return []
    first = statistics.summarize([[samples[0]] for samples in phase_sums(group)]).median
    return [f"The first step of {size} takes {units.seconds(first)}, {units.ratio(first / settled)} a settled one."]


def _without(size: str, known: Known) -> list[str]:
    least, most = min(known), max(known)
    worst, settled = known[least][1], known[most][1]
    spread = f", its standard deviation {units.ratio(worst.std / settled.std)}" if worst.std and settled.std else ""
    before = f"With {plural(least, 'step')} of" if least else "Without"
    return [
        f"{before} warm-up the mean step of {size} is {units.ratio(worst.mean / settled.mean)} that after {most} "
        f"warm-up steps{spread}."
    ]


def _settled(size: str, known: Known) -> list[str]:
    counts, most, within = sorted(known), max(known), f"{100 * SETTLED_WITHIN:g} %"
    near = [abs(known[count][1].mean / known[most][1].mean - 1) <= SETTLED_WITHIN for count in counts]
    enough = next(count for index, count in enumerate(counts) if all(near[index:]))
    if enough == most:
        return [
            f"With fewer than {most} warm-up steps the mean step of {size} is not within {within} of that after "
            f"{most}; {most} may not be enough either."
        ]
    return [
        f"From {plural(enough, 'warm-up step')} on the mean step of {size} stays within {within} of that after {most}."
    ]
