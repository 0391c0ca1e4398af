"""Findings about profiles."""

from __future__ import annotations

from collections.abc import Sequence

from stepbench.experiments.profile import operators
from stepbench.experiments.profile.operators import ADDS_UP_WITHIN, MATRIX_PRODUCTS, OUTSIDE
from stepbench.reporting import units
from stepbench.reporting.findings import Finding, between, capital, listing, said
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group


def find(results: Results) -> list[Finding]:
    """Return the top operator of each phase, calls, matrix products, attention, overhead, sums, and nsys' kernels."""
    groups = [group for group in results.groups() if operators.phases(group)]
    if not groups:
        return []
    kinds = {
        "top operator": _top,
        "calls": _calls,
        "matrix products": _matrix_products,
        "attention": _attention,
        "framework overhead": _outside,
        "sum of phases": _sum,
        "nsys": _nsys,
    }
    return [finding for kind, tell in kinds.items() for finding in said(kind, tell(groups), groups)]


def _top(groups: Sequence[Group]) -> list[str]:
    """Say which operator takes the most of each phase."""
    leaders: dict[tuple[str, str], list[tuple[float, str]]] = {}
    counts: dict[str, int] = {}
    for group in groups:
        for phase in operators.phases(group):
            counts[phase.name] = counts.get(phase.name, 0) + 1
            if top := phase.top(1):
                share = phase.time(top[0]) / phase.seconds
                leaders.setdefault((phase.name, top[0]["name"]), []).append((share, operators.place(group, groups)))
    sentences = []
    for (phase_name, operator), found in leaders.items():
        shares = between([units.percent(share) for share, _ in sorted(found)])
        title = "optimizer" if phase_name == "optimizer" else f"{phase_name} pass"
        everywhere = len(found) == counts[phase_name]
        scope = "" if everywhere else f" ({listing([place for _, place in found])})"
        sentences.append(f"In the {title} the operator {operator} takes the most time{scope}: {shares}.")
    return sentences


def _calls(groups: Sequence[Group]) -> list[str]:
    """Say how many operators a step calls."""
    sentences = []
    for group in groups:
        found = operators.phases(group)
        parts = [f"{operators.count(phase.calls)} in {_article(phase.name)}" for phase in found]
        total = sum(phase.calls for phase in found)
        told = f", {listing(parts)}" if len(parts) > 1 else ""
        sentences.append(f"{capital(operators.place(group, groups))} calls {operators.count(total)} operators{told}.")
    return sentences


def _matrix_products(groups: Sequence[Group]) -> list[str]:
    """Say how the share of matrix products moves from inference to training."""
    sentences = []
    for group in groups:
        if group.point["passes"] == "forward":
            continue
        same = group.point | {"passes": "forward"}
        alone = next((other for other in groups if other.point == same), None)
        trained = _matrix_share(group)
        if alone is None:
            sentences.append(f"Matrix products take {units.percent(trained)} of {operators.place(group, groups)}.")
            continue
        before = _matrix_share(alone)
        moved = "rises" if trained > before * 1.05 else "falls" if trained < before / 1.05 else "stays the same"
        how = f"from {units.percent(before)} to {units.percent(trained)}"
        sentences.append(
            f"From inference to {operators.place(group, groups)} the share of matrix products in the time {moved}: "
            f"{how}."
        )
    return sentences


def _attention(groups: Sequence[Group]) -> list[str]:
    """Say which part of attention takes the most time."""
    sentences = []
    for group in groups:
        totals: dict[str, float] = {}
        found = operators.phases(group)
        for phase in found:
            for part, seconds in operators.attention(group, phase).items():
                totals[part] = totals.get(part, 0.0) + seconds
        if not totals:
            continue
        part = max(totals, key=lambda each: totals[each])
        share, of_step = totals[part] / sum(totals.values()), sum(totals.values()) / sum(p.seconds for p in found)
        sentences.append(
            f"In attention the {part} {'takes' if part == 'softmax' else 'take'} the most time, "
            f"{units.percent(share)}; scores, softmax and values together take "
            f"{units.percent(of_step)} of {operators.place(group, groups)}."
        )
    return sentences


def _outside(groups: Sequence[Group]) -> list[str]:
    """Say how much of a step lies outside every operator."""
    found = []
    for group in groups:
        kinds = operators.whole(operators.phases(group))
        found.append(kinds[OUTSIDE] / sum(kinds.values()))
    found.sort()
    shares = between([units.percent(share) for share in found])
    return [f"{shares} of a step lies outside every operator: the Python interpreter, and on a GPU idle time."]


def _sum(groups: Sequence[Group]) -> list[str]:
    """Say whether the phases add up to the step, and what profiling itself costs."""
    ratios = [(ratio, group) for group in groups if (ratio := operators.sum_over_step(group)) is not None]
    off = [operators.place(group, groups) for ratio, group in ratios if abs(ratio - 1) > ADDS_UP_WITHIN]
    within = units.percent(ADDS_UP_WITHIN)
    text = (
        f"The phases do not add up to the step within {within} in {listing(off)}."
        if off
        else f"The phases of every profile add up to its step within {within}."
    )
    slower = sorted(ratio for group in groups if (ratio := operators.slowdown(group)) is not None)
    span = between([units.ratio(ratio) for ratio in slower]) if slower else ""
    return [f"{text} The profiler makes a step {span} as long." if slower else text]


def _nsys(groups: Sequence[Group]) -> list[str]:
    """Say which kernel takes the most time under nsys, or why nsys was not used."""
    reasons, sentences = [], []
    for group in groups:
        seen = group.records[0].details["nsys"]
        if "reason" in seen:
            reasons.append(seen["reason"])
        elif seen["kernels"]:
            top = max(seen["kernels"], key=lambda kernel: kernel["device_s"])
            total = sum(kernel["device_s"] for kernel in seen["kernels"])
            share = units.percent(top["device_s"] / total) if total else units.NOTHING
            sentences.append(
                f"Nsight Systems: {top['name']} takes the most kernel time in "
                f"{operators.place(group, groups)}, {share}."
            )
    if reasons:
        sentences.append(f"Nsight Systems was not used: {listing(list(dict.fromkeys(reasons)))}.")
    return sentences


def _matrix_share(group: Group) -> float:
    kinds = operators.whole(operators.phases(group))
    return kinds[MATRIX_PRODUCTS] / sum(kinds.values())


def _article(phase: str) -> str:
    return "the optimizer" if phase == "optimizer" else f"the {phase} pass"
