"""Findings about profiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stepbench.experiments.profile import operators
from stepbench.experiments.profile.operators import ADDS_UP_WITHIN, MATRIX_PRODUCTS, OUTSIDE
from stepbench.reporting import units
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, between, capital, listing, said
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group

DIFFER = "parts and whole differ"


def find(results: Results) -> list[Finding]:
    """Return the top operator of each phase, calls, matrix products, attention, overhead, sums, and nsys' kernels."""
    groups = [group for group in results.groups() if operators.phases(group)]
    if not groups:
        return []
    tellers = (_top, _calls, _matrix_products, _attention, _outside, _sum, _slowdown, _nsys)
    return [finding for tell in tellers for finding in tell(groups)]


def _shares_of(groups: Iterable[Group]) -> Evidence:
    """Return the evidence of a sentence about shares of profiled steps."""
    return Evidence.of(groups, operators.profiled)


def _top(groups: Sequence[Group]) -> list[Finding]:
    """Say which operator takes the most of each phase."""
    leaders: dict[tuple[str, str], list[tuple[float, Group]]] = {}
    counts: dict[str, int] = {}
    for group in groups:
        for phase in operators.phases(group):
            counts[phase.name] = counts.get(phase.name, 0) + 1
            if top := phase.top(1):
                share = phase.time(top[0]) / phase.seconds
                leaders.setdefault((phase.name, top[0]["name"]), []).append((share, group))
    told = []
    for (phase_name, operator), found in leaders.items():
        shares = between([units.percent(share) for share in sorted(share for share, _ in found)])
        title = "optimizer" if phase_name == "optimizer" else f"{phase_name} pass"
        everywhere = len(found) == counts[phase_name]
        scope = "" if everywhere else f" ({listing([operators.place(group, groups) for _, group in found])})"
        text = f"In the {title} the operator {operator} takes the most time{scope}: {shares}."
        told += said("top operator", [text], _shares_of(group for _, group in found))
    return told


def _calls(groups: Sequence[Group]) -> list[Finding]:
    """Say how many operators a step calls."""
    sentences: list[Finding] = []
    for group in groups:
        found = operators.phases(group)
        parts = [f"{operators.count(phase.calls)} in {_article(phase.name)}" for phase in found]
        total = sum(phase.calls for phase in found)
        more = f", {listing(parts)}" if len(parts) > 1 else ""
        text = f"{capital(operators.place(group, groups))} calls {operators.count(total)} operators{more}."
        sentences += said("calls", [text], Evidence.of([group]))
    return sentences


def _matrix_products(groups: Sequence[Group]) -> list[Finding]:
    """Say how the share of matrix products moves from inference to training."""
    sentences: list[Finding] = []
    for group in groups:
        if group.point["passes"] == "forward":
            continue
        same = group.point | {"passes": "forward"}
        alone = next((other for other in groups if other.point == same), None)
        trained = _matrix_share(group)
        if alone is None:
            text = f"Matrix products take {units.percent(trained)} of {operators.place(group, groups)}."
            sentences += said("matrix products", [text], _shares_of([group]))
            continue
        before = _matrix_share(alone)
        moved = "rises" if trained > before * 1.05 else "falls" if trained < before / 1.05 else "stays the same"
        how = f"from {units.percent(before)} to {units.percent(trained)}"
        text = (
            f"From inference to {operators.place(group, groups)} the share of matrix products in the time {moved}: "
            f"{how}."
        )
        sentences += said("matrix products", [text], _shares_of([alone, group]))
    return sentences


def _attention(groups: Sequence[Group]) -> list[Finding]:
    """Say which part of attention takes the most time."""
    sentences: list[Finding] = []
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
        text = (
            f"In attention the {part} {'takes' if part == 'softmax' else 'take'} the most time, "
            f"{units.percent(share)}; scores, softmax and values together take "
            f"{units.percent(of_step)} of {operators.place(group, groups)}."
        )
        sentences += said("attention", [text], _shares_of([group]))
    return sentences


def _outside(groups: Sequence[Group]) -> list[Finding]:
    """Say how much of a step lies outside every operator."""
    found = []
    for group in groups:
        kinds = operators.whole(operators.phases(group))
        found.append(kinds[OUTSIDE] / sum(kinds.values()))
    found.sort()
    shares = between([units.percent(share) for share in found])
    text = f"{shares} of a step lies outside every operator: the Python interpreter, and on a GPU idle time."
    return said("framework overhead", [text], _shares_of(groups))


def _sum(groups: Sequence[Group]) -> list[Finding]:
    """Say whether the phases add up to the step, under the profiler and, where it is marked, without it."""
    ratios = [(ratio, group) for group in groups if (ratio := operators.sum_over_step(group)) is not None]
    off = [operators.place(group, groups) for ratio, group in ratios if abs(ratio - 1) > ADDS_UP_WITHIN]
    within = units.percent(ADDS_UP_WITHIN)
    text = (
        f"Under the profiler the phases do not add up to the step within {within} in {listing(off)}."
        if off
        else f"Under the profiler the phases of every step add up to it within {within}."
    )
    without = [group for group in groups if any(mark.kind == DIFFER for mark in group.marks)]
    if without:
        also = "also " if off else ""
        text += (
            f" Timed without it, they {also}do not in {listing([operators.place(each, groups) for each in without])}."
        )
    return said("sum of phases", [text], _shares_of(groups))


def _slowdown(groups: Sequence[Group]) -> list[Finding]:
    """Say what profiling itself costs."""
    known = [(ratio, group) for group in groups if (ratio := operators.slowdown(group)) is not None]
    if not known:
        return []
    span = between([units.ratio(ratio) for ratio in sorted(ratio for ratio, _ in known)])
    text = f"The profiler makes a step {span} as long."
    return said("slowdown", [text], Evidence.of([group for _, group in known], operators.profiled, "step_s"))


def _nsys(groups: Sequence[Group]) -> list[Finding]:
    """Say which kernel takes the most time under nsys, or why nsys was not used."""
    reasons: dict[str, list[Group]] = {}
    sentences: list[Finding] = []
    for group in groups:
        seen = group.records[0].details["nsys"]
        if "reason" in seen:
            reasons.setdefault(str(seen["reason"]), []).append(group)
        elif seen["kernels"]:
            top = max(seen["kernels"], key=lambda kernel: kernel["device_s"])
            total = sum(kernel["device_s"] for kernel in seen["kernels"])
            share = units.percent(top["device_s"] / total) if total else units.NOTHING
            text = (
                f"Nsight Systems: {top['name']} takes the most kernel time in "
                f"{operators.place(group, groups)}, {share}."
            )
            sentences += said("nsys", [text], Evidence.of([group]))
    if reasons:
        without = [group for each in reasons.values() for group in each]
        text = f"Nsight Systems was not used: {listing(list(reasons))}."
        sentences += said("nsys", [text], Evidence.of(without))
    return sentences


def _matrix_share(group: Group) -> float:
    kinds = operators.whole(operators.phases(group))
    return kinds[MATRIX_PRODUCTS] / sum(kinds.values())


def _article(phase: str) -> str:
    return "the optimizer" if phase == "optimizer" else f"the {phase} pass"
