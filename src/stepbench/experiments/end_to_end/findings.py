"""Findings about timed training steps."""

from __future__ import annotations

from collections.abc import Sequence

from stepbench.experiments.end_to_end import reference as points
from stepbench.experiments.end_to_end.reference import COMPARED, REFERENCE, reference
from stepbench.experiments.end_to_end.step_table import utilisation
from stepbench.reporting import agreement, comparisons, findings, statistics, units
from stepbench.reporting.columns import where
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, between, listing, placed, said
from stepbench.reporting.frames import Results
from stepbench.reporting.peaks import Peaks
from stepbench.reporting.points import Group, compared
from stepbench.reporting.statistics import Comparison
from stepbench.reporting.steps import PHASES, WHOLE, flops

WHOLE_KEY = f"{WHOLE}_s"
PHASE_KEYS = tuple(f"{phase}_s" for phase in PHASES)


def find(results: Results) -> list[Finding]:
    """Return which phase dominates, how time grows with context, the utilisation, and what is faster than what."""
    shown, sizes = reference(results.groups()), points.by_size(results.groups())
    found = [
        *_dominant_phase(sizes),
        *_backward_over_forward(sizes),
        *_scaling(shown, "context"),
        *_utilisation(shown, results.peaks),
    ]
    for axis in COMPARED:
        found += findings.comparison(comparisons.pairs(results, axis, REFERENCE[axis]))
    return found + agreement.find(points.agreements(results))


def _dominant_phase(groups: Sequence[Group]) -> list[Finding]:
    """Say which phase takes the most of a step, at each point that has more than one."""
    leaders: dict[str, list[tuple[float, Group]]] = {}
    for group in groups:
        medians = {name: summary.median for name in PHASES if (summary := group.summary(f"{name}_s"))}
        if len(medians) > 1 and sum(medians.values()) > 0:
            name = max(medians, key=lambda each: medians[each])
            leaders.setdefault(name, []).append((medians[name] / sum(medians.values()), group))
    total = sum(len(found) for found in leaders.values())
    told = []
    for name, found in leaders.items():
        shares = between([units.percent(share) for share in sorted(share for share, _ in found)])
        title = "optimizer" if name == "optimizer" else f"{name} pass"
        places = listing([where(group, groups) for _, group in found])
        at = "at every size" if len(found) == total > 1 else f"at {places}"
        text = f"The {title} takes the largest part of a step {at}: {shares} of the sum of phases."
        evidence = Evidence.of([group for _, group in found], *PHASE_KEYS)
        told += said("dominant phase", [placed(text, evidence)], evidence)
    return told


def _backward_over_forward(groups: Sequence[Group]) -> list[Finding]:
    """Say how much longer the backward pass takes than the forward pass, beside how many more FLOPs it has."""
    found = []
    for group in groups:
        forward, backward = group.summary("forward_s"), group.summary("backward_s")
        if forward and backward and forward.median:
            found.append((backward.median / forward.median, group))
    if not found:
        return []
    found.sort(key=lambda each: (each[0], where(each[1], groups)))
    counts = [(group.scalar("backward_flops"), group.scalar("forward_flops")) for group in groups if group.records]
    by_flops = {round(backward / forward, 2) for backward, forward in counts if backward and forward}
    expected = f"; it has {units.ratio(by_flops.pop())} the FLOPs" if len(by_flops) == 1 else ""
    (low, lowest), (high, highest) = found[0], found[-1]
    text = (
        f"The backward pass takes {units.ratio(low)} as long as the forward pass ({where(lowest, groups)}){expected}."
    )
    if len(found) > 1:
        span = f"{units.ratio(low)} ({where(lowest, groups)}) to {units.ratio(high)} ({where(highest, groups)})"
        text = f"The backward pass takes {span} as long as the forward pass{expected}."
    evidence = Evidence.of([group for _, group in found], "forward_s", "backward_s")
    return said("backward over forward", [placed(text, evidence)], evidence)


def _scaling(groups: Sequence[Group], axis: str) -> list[Finding]:
    """Say for each size how a step's time grows from the smallest to the largest value of a numeric axis."""
    told = []
    for size in dict.fromkeys(group.point["size"] for group in groups):
        known = {
            group.point[axis]: group for group in groups if group.point["size"] == size and group.summary(WHOLE_KEY)
        }
        if len(known) < 2:
            continue
        low, high = min(known), max(known)
        comparison = compared(known[low], known[high], WHOLE_KEY)
        assert comparison is not None  # noqa: S101 - both have samples
        grown, judged = _growth(comparison, high / low)
        text = f"{high / low:g}× the {axis} ({low} to {high}) makes a step of {size} {grown} as long{judged}."
        evidence = Evidence.of(known.values(), WHOLE_KEY, comparison=comparison)
        told += said("scaling", [placed(text, evidence)], evidence)
    return told


def _growth(comparison: Comparison, more: float) -> tuple[str, str]:
    """Return by how much the median grew, and how that compares with `more`, the growth of what it depends on."""
    grown, least, most = comparison.time_ratio
    if grown is None:
        return units.NOTHING, ""
    text = units.ratio(grown, least, most)
    if min(comparison.processes) < statistics.MIN_PROCESSES or least is None or most is None:
        return text, ""
    if max(grown / more, more / grown) <= 1 + statistics.SAME_WITHIN:
        return text, ": nearly linear"
    if least <= more <= most:
        return text, ": linear within the interval"
    return text, f": {'more' if grown > more else 'less'} than linear"


def _utilisation(groups: Sequence[Group], peaks: Peaks) -> list[Finding]:
    """Say which points have the lowest and the highest MFU."""
    found = [(share, group) for group in groups if (share := utilisation(group, peaks)[0]) is not None]
    if not found:
        known = [group for group in groups if group.records]
        text = "MFU is unknown: there is no fresh record of the machine's peaks."
        return said("utilisation", [text], Evidence.of(known)) if known else []
    found.sort(key=lambda each: each[0])
    (least, worst), (most, best) = found[0], found[-1]
    vendor = utilisation(best, peaks)[1]
    also = f" ({units.percent(vendor)} of the vendor's)" if vendor is not None else ""
    if len(found) == 1:
        text = f"MFU is {units.percent(most)} of the measured matmul peak{also} at {where(best, groups)}."
        return said("utilisation", [text], Evidence.of([best], WHOLE_KEY))
    text = (
        f"MFU is {units.percent(least)} ({where(worst, groups)}) to {units.percent(most)} ({where(best, groups)}) of "
        f"the measured matmul peak{f'; the latter is {units.percent(vendor)} of the vendor’s' if vendor else ''}."
    )
    comparison = compared(worst, best, WHOLE_KEY, lambda group: float(flops(group) or 1))
    evidence = Evidence.of([group for _, group in found], WHOLE_KEY, comparison=comparison)
    return said("utilisation", [placed(text, evidence)], evidence)
