"""What is found in profiles, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from stepbench.experiments.profile import operators
from stepbench.experiments.profile.operators import ADDS_UP_WITHIN, MATRIX_PRODUCTS, OUTSIDE
from stepbench.reporting import units
from stepbench.reporting.findings import between, listing
from stepbench.reporting.frames import Group, Results


def find(results: Results) -> list[str]:
    """Return the top operator of each phase, calls per step, matrix products' share, attention, what is missing."""
    groups = [group for group in results.groups() if operators.phases(group)]
    if not groups:
        return []
    return [
        *_top(groups),
        *_calls(groups),
        *_matrix_products(groups),
        *_attention(groups),
        *_outside(groups),
        *_sum(groups),
        *_nsys(groups),
    ]


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
        sentences.append(f"The operator to attack first in the {title} is {operator}{scope}: {shares} of its time.")
    return sentences


def _calls(groups: Sequence[Group]) -> list[str]:
    """Say how many operators a step calls."""
    sentences = []
    for group in groups:
        found = operators.phases(group)
        parts = [f"{operators.count(phase.calls)} in {_article(phase.name)}" for phase in found]
        total = sum(phase.calls for phase in found)
        told = f", {listing(parts)}" if len(parts) > 1 else ""
        sentences.append(f"{_capital(operators.place(group, groups))} calls {operators.count(total)} operators{told}.")
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
        moved = "rises" if trained > before * 1.05 else "falls" if trained < before / 1.05 else "stays as it is"
        how = f"from {units.percent(before)} to {units.percent(trained)}"
        sentences.append(
            f"From inference to {operators.place(group, groups)} the share of matrix products {moved}: "
            f"{how} of the time."
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
            f"Inside attention the {part} {'takes' if part == 'softmax' else 'take'} the most, {units.percent(share)}; "
            f"scores, softmax and values together are {units.percent(of_step)} of {operators.place(group, groups)}."
        )
    return sentences


def _outside(groups: Sequence[Group]) -> list[str]:
    """Say how much of a step no operator accounts for."""
    found = []
    for group in groups:
        kinds = operators.whole(operators.phases(group))
        found.append(kinds[OUTSIDE] / sum(kinds.values()))
    found.sort()
    shares = between([units.percent(share) for share in found])
    return [f"No operator accounts for {shares} of a step: Python, and on a GPU the times when it waits."]


def _sum(groups: Sequence[Group]) -> list[str]:
    """Say whether the phases add up to the step, and what profiling itself costs."""
    ratios = [(ratio, group) for group in groups if (ratio := operators.sum_over_step(group)) is not None]
    off = [operators.place(group, groups) for ratio, group in ratios if abs(ratio - 1) > ADDS_UP_WITHIN]
    within = units.percent(ADDS_UP_WITHIN)
    said = (
        f"The phases do not add up to the step within {within} in {listing(off)}."
        if off
        else f"The phases of every profile add up to its step within {within}."
    )
    slower = sorted(ratio for group in groups if (ratio := operators.slowdown(group)) is not None)
    span = between([units.ratio(ratio) for ratio in slower]) if slower else ""
    return [f"{said} Under the profiler a step takes {span} the time that it takes without." if slower else said]


def _nsys(groups: Sequence[Group]) -> list[str]:
    """Say which kernel nsys saw most of, or why it saw none."""
    reasons, sentences = [], []
    for group in groups:
        seen = group.records[0].details["nsys"]
        if "reason" in seen:
            reasons.append(seen["reason"])
        elif seen["kernels"]:
            top = max(seen["kernels"], key=lambda kernel: kernel["device_s"])
            total = sum(kernel["device_s"] for kernel in seen["kernels"])
            share = units.percent(top["device_s"] / total) if total else units.NOTHING
            sentences.append(f"Nsight Systems saw most of {top['name']} in {operators.place(group, groups)}: {share}.")
    if reasons:
        sentences.append(f"Nsight Systems was not used: {listing(list(dict.fromkeys(reasons)))}.")
    return sentences


def _matrix_share(group: Group) -> float:
    kinds = operators.whole(operators.phases(group))
    return kinds[MATRIX_PRODUCTS] / sum(kinds.values())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _article(phase: str) -> str:
    return "the optimizer" if phase == "optimizer" else f"the {phase} pass"
