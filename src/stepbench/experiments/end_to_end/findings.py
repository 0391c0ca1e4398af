"""Findings about timed training steps."""

from __future__ import annotations

from collections.abc import Sequence

from stepbench.experiments.end_to_end import reference as points
from stepbench.experiments.end_to_end.reference import COMPARED, REFERENCE, reference
from stepbench.experiments.end_to_end.step_table import utilisation
from stepbench.reporting import comparisons, findings, statistics, units
from stepbench.reporting.columns import where
from stepbench.reporting.findings import Finding, between, listing, said
from stepbench.reporting.frames import Results
from stepbench.reporting.peaks import Peaks
from stepbench.reporting.points import Group
from stepbench.reporting.steps import PHASES, WHOLE


def find(results: Results) -> list[Finding]:
    """Return which phase dominates, how time grows with context, the utilisation, and what is faster than what."""
    shown, sizes = reference(results.groups()), points.by_size(results.groups())
    found = said("dominant phase", _dominant_phase(sizes), sizes)
    found += said("backward over forward", _backward_over_forward(sizes), sizes)
    found += said("scaling", _scaling(shown, "context"), shown)
    found += said("utilisation", _utilisation(shown, results.peaks), shown)
    for axis in COMPARED:
        found += findings.comparison(comparisons.pairs(results, axis, REFERENCE[axis]))
    return found


def _dominant_phase(groups: Sequence[Group]) -> list[str]:
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
        sentences.append(f"The {title} takes the largest part of a step {scope}: {shares} of the sum of phases.")
    return sentences


def _backward_over_forward(groups: Sequence[Group]) -> list[str]:
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


def _scaling(groups: Sequence[Group], axis: str) -> list[str]:
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
            f"{high / low:g}× the {axis} ({low} to {high}) makes a step of {size} {grown} as long: {judged}."
        )
    return sentences


def _growth(small: statistics.Summary, large: statistics.Summary, more: float) -> tuple[str, str]:
    """Return by how much the median grew, and how that compares with `more`, the growth of what it depends on."""
    grown = large.median / small.median
    least = large.low / small.high if large.low and small.high else grown
    most = large.high / small.low if large.high and small.low else grown
    if max(grown / more, more / grown) <= 1 + statistics.SAME_WITHIN:
        judged = "linear"
    elif least <= more <= most:
        judged = "linear within the intervals"
    else:
        judged = f"{'more' if grown > more else 'less'} than linear"
    return units.ratio(grown), judged


def _utilisation(groups: Sequence[Group], peaks: Peaks) -> list[str]:
    """Say which points have the lowest and the highest MFU."""
    found = [(share, group) for group in groups if (share := utilisation(group, peaks)[0]) is not None]
    if not found:
        known = any(group.records for group in groups)
        return ["MFU is unknown: there is no fresh record of the machine's peaks."] if known else []
    found.sort(key=lambda each: each[0])
    (least, worst), (most, best) = found[0], found[-1]
    vendor = utilisation(best, peaks)[1]
    also = f" ({units.percent(vendor)} of the vendor's)" if vendor is not None else ""
    if len(found) == 1:
        return [f"MFU is {units.percent(most)} of the measured matmul peak{also} at {where(best, groups)}."]
    return [
        f"MFU is {units.percent(least)} ({where(worst, groups)}) to {units.percent(most)} ({where(best, groups)}) of "
        f"the measured matmul peak{f'; the latter is {units.percent(vendor)} of the vendor’s' if vendor else ''}."
    ]
