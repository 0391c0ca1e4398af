"""Findings about sharding."""

from __future__ import annotations

from stepbench.reporting import statistics, units
from stepbench.reporting.columns import axis_words, variant
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, listing, said
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group, compared
from stepbench.reporting.sharding_tables import REPLICATED, RESIDENT, SOURCE, VARIANT, at, measured, prefix, replicated

NEAR = 0.05  # of what was measured


def find(results: Results) -> list[Finding]:
    """Return what each variant saves and costs compared with full replication, and how good the predictions are."""
    groups = results.groups()
    found = []
    for group in groups:
        base = replicated(group, results)
        if group.point[VARIANT] in REPLICATED or base is None:
            continue
        found += _saved(group, base, groups)
        found += _cost(group, base, groups)
    return found + _predictions(measured(results))


def _saved(group: Group, base: Group, groups: list[Group]) -> list[Finding]:
    """Say how many bytes a rank holds between steps and at the peak, relative to full replication."""
    mine, theirs = at(group, "optimizer_after"), at(base, "optimizer_after")
    peaks = [each.scalar(f"{prefix(each)}peak_memory_bytes") for each in (group, base)]
    if not all(peaks) or any(each is None for each in (*mine.values(), *theirs.values())):
        return []
    parts = [
        f"{axis_words(category)} {units.ratio((mine[category] or 0) / (theirs[category] or 1))}"
        for category in RESIDENT
        if theirs[category]
    ]
    name, predicted = variant(group, groups, VARIANT, SOURCE), ", predicted" if prefix(group) else ""
    text = (
        f"{name}, after the update and relative to {axis_words(base.point[VARIANT])}{predicted}: {listing(parts)}; "
        f"its peak is {units.byte_count(peaks[0])}, {units.ratio(peaks[0] / peaks[1])}."
    )
    return said("memory", [text], Evidence.of((group, base)))


def _cost(group: Group, base: Group, groups: list[Group]) -> list[Finding]:
    """Say how much longer its step takes."""
    found = compared(base, group, "step_s")
    if found is None:
        return []
    ratio = units.ratio(*found.time_ratio)
    name = variant(group, groups, VARIANT, SOURCE)
    against = axis_words(base.point[VARIANT])
    text = f"A step of {name} takes {ratio} the time of {against}."
    if found.verdict is statistics.Verdict.SAME:
        text = f"A step of {name} takes as long as one of {against}: {ratio}."
    return said("time", [text], Evidence.of((base, group), "step_s", comparison=found))


def _predictions(groups: list[Group]) -> list[Finding]:
    """Say how far the predicted peaks are off the measured ones."""
    pairs = [(group, *(group.scalar(f"{side}peak_memory_bytes") for side in ("predicted_", ""))) for group in groups]
    known = [(group, predicted / peak - 1) for group, predicted, peak in pairs if predicted and peak]
    if not known:
        return []
    evidence = Evidence.of([group for group, _ in known])
    off = [(group, share) for group, share in known if abs(share) > NEAR]
    if not off:
        worst = max(abs(share) for _, share in known)
        text = f"Every predicted peak is within {units.percent(max(worst, units.LEAST_SHARE))} of the measured one."
        return said("predictions", [text], evidence)
    names = [
        f"{variant(group, groups, VARIANT, SOURCE)} ({units.percent(abs(share))} {'above' if share > 0 else 'below'})"
        for group, share in off
    ]
    text = f"Predicted peaks more than {units.percent(NEAR)} off the measured ones: {listing(names)}."
    return said("predictions", [text], evidence)
