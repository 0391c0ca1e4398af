"""What is found about warming up, in sentences."""

from __future__ import annotations

from stepbench.reporting import statistics, units
from stepbench.reporting.findings import plural
from stepbench.reporting.frames import Group, Results
from stepbench.reporting.steps import phase_sums

SETTLED_WITHIN = 0.05  # of the mean after the most steps of warm-up


def find(results: Results) -> list[str]:
    """Say what the first step costs, and from how many steps of warm-up on the mean stays near its last value."""
    groups, within = results.groups(), SETTLED_WITHIN
    sentences = []
    for size in dict.fromkeys(group.point["size"] for group in groups):
        known = {
            group.point["warmup"]: (group, statistics.summarize(sums))
            for group in groups
            if group.point["size"] == size and (sums := phase_sums(group))
        }
        if len(known) < 2:
            continue
        least, most = min(known), max(known)
        settled = known[most][1]
        sentences += _first_step(size, known[least][0], settled.median)
        worst = known[least][1]
        spread = (
            f" and the standard deviation {units.ratio(worst.std / settled.std)}" if worst.std and settled.std else ""
        )
        before = f"With {plural(least, 'step')} of" if least else "Without"
        sentences.append(
            f"{before} warm-up the mean of {size} is "
            f"{units.ratio(worst.mean / settled.mean)} that after {most}{spread}."
        )
        near = [abs(known[count][1].mean / settled.mean - 1) <= within for count in sorted(known)]
        enough = next(count for index, count in enumerate(sorted(known)) if all(near[index:]))
        if enough == most:
            sentences.append(
                f"No smaller count of warm-up steps than {most} brings the mean of {size} within "
                f"{100 * within:g} % of it, so that {most} may not be enough either."
            )
        else:
            sentences.append(
                f"From {plural(enough, 'step')} of warm-up on the mean of {size} stays within "
                f"{100 * within:g} % of that after {most}."
            )
    return sentences


def _first_step(size: str, group: Group, settled: float) -> list[str]:
    if group.point["warmup"] != 0 or not settled:
        return []
    first = statistics.summarize([[samples[0]] for samples in phase_sums(group)]).median
    return [f"The first step of {size} takes {units.seconds(first)}, {units.ratio(first / settled)} a settled one."]
