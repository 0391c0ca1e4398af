"""What is found about timed training steps, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from stepbench.reporting import statistics, steps, units
from stepbench.reporting.findings import between, listing, plural, where
from stepbench.reporting.frames import Group
from stepbench.reporting.peaks import Peaks
from stepbench.reporting.steps import PHASES, WHOLE, phase_sums


def dominant_phase(groups: Sequence[Group]) -> list[str]:
    """Say which phase takes the most of a step, at each point that has more than one."""
    leaders: dict[str, list[tuple[float, str]]] = {}
    for group in groups:
        medians = {name: summary.median for name in PHASES if (summary := group.summary(f"{name}_s"))}
        if len(medians) > 1 and sum(medians.values()) > 0:
            name = max(medians, key=lambda each: medians[each])
            leaders.setdefault(name, []).append((medians[name] / sum(medians.values()), where(group, groups)))
    total = sum(len(found) for found in leaders.values())
    sentences = []
    for name, found in leaders.items():
        shares = between([units.percent(share) for share, _ in sorted(found)])
        title = "optimizer" if name == "optimizer" else f"{name} pass"
        scope = "at every size" if len(found) == total > 1 else f"at {listing([place for _, place in found])}"
        sentences.append(f"The {title} takes the most of a step {scope}: {shares} of the phases' sum.")
    return sentences


def backward_over_forward(groups: Sequence[Group]) -> list[str]:
    """Say how much longer the backward pass takes than the forward pass, beside how many more FLOPs it has."""
    found = []
    for group in groups:
        forward, backward = group.summary("forward_s"), group.summary("backward_s")
        if forward and backward and forward.median:
            found.append((backward.median / forward.median, where(group, groups)))
    if not found:
        return []
    found.sort()
    counts = [(group.scalar("backward_flops"), group.scalar("forward_flops")) for group in groups if group.records]
    by_flops = {round(backward / forward, 2) for backward, forward in counts if backward and forward}
    expected = f"; it has {units.ratio(by_flops.pop())} the FLOPs" if len(by_flops) == 1 else ""
    if len(found) == 1:
        ratio, place = found[0]
        return [f"The backward pass takes {units.ratio(ratio)} as long as the forward pass ({place}){expected}."]
    (low, lowest), (high, highest) = found[0], found[-1]
    span = f"{units.ratio(low)} ({lowest}) to {units.ratio(high)} ({highest})"
    return [f"The backward pass takes {span} as long as the forward pass{expected}."]


def scaling(groups: Sequence[Group], axis: str) -> list[str]:
    """Say for each size how a step's time grows from the smallest to the largest value of a numeric axis."""
    sentences = []
    for size in dict.fromkeys(group.point["size"] for group in groups):
        known = {
            group.point[axis]: summary
            for group in groups
            if group.point["size"] == size and (summary := group.summary(f"{WHOLE}_s"))
        }
        if len(known) < 2:
            continue
        low, high = min(known), max(known)
        grown, judged = _growth(known[low], known[high], high / low)
        sentences.append(
            f"From {axis} {low} to {high} ({high / low:g}×) a step of {size} takes {grown} as long: {judged}."
        )
    return sentences


def _growth(small: statistics.Summary, large: statistics.Summary, more: float) -> tuple[str, str]:
    """Return by how much the median grew, and how that compares with `more`, the growth of what it depends on."""
    grown = large.median / small.median
    least = large.low / small.high if large.low and small.high else grown
    most = large.high / small.low if large.high and small.low else grown
    if max(grown / more, more / grown) <= 1 + statistics.SAME_WITHIN:
        judged = "in proportion"
    elif least <= more <= most:
        judged = "in proportion, as far as the intervals tell"
    else:
        judged = f"{'more' if grown > more else 'less'} than in proportion"
    return units.ratio(grown), judged


def utilisation(groups: Sequence[Group], peaks: Peaks) -> list[str]:
    """Say which point uses most of the measured peak, and how little the least does."""
    found = [(share, group) for group in groups if (share := steps.utilisation(group, peaks)[0]) is not None]
    if not found:
        if any(group.records for group in groups):
            return [
                "How much of the machine's peak the steps use is not known: no fresh record of ceilings gives a peak."
            ]
        return []
    found.sort(key=lambda each: each[0])
    (least, worst), (most, best) = found[0], found[-1]
    vendor = steps.utilisation(best, peaks)[1]
    also = f" ({units.percent(vendor)} of the vendor's)" if vendor is not None else ""
    if len(found) == 1:
        return [f"The step uses {units.percent(most)} of the measured peak{also} at {where(best, groups)}."]
    return [
        f"The most of the measured peak is used at {where(best, groups)}: {units.percent(most)}{also}; "
        f"the least at {where(worst, groups)}: {units.percent(least)}."
    ]


def warmup(groups: Sequence[Group], within: float) -> list[str]:
    """Say what the first step costs, and from how many steps of warm-up on the mean stays near its last value.

    Args:
        groups: points with the axes `size` and `warmup`.
        within: how near, as a share of the mean after the most steps of warm-up.
    """
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
