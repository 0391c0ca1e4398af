"""What is found about sharding, in sentences."""

from __future__ import annotations

from stepbench.reporting import statistics, units
from stepbench.reporting.findings import listing, where
from stepbench.reporting.frames import Group, Results
from stepbench.reporting.sharding_tables import REPLICATED, RESIDENT, SOURCE, VARIANT, at, measured, prefix, replicated
from stepbench.reporting.tables import axis_words

NEAR = 0.05  # of what was measured


def find(results: Results) -> list[str]:
    """Return what each variant saves and costs against keeping everything, and how good the predictions are."""
    groups = results.groups()
    sentences = []
    for group in groups:
        base = replicated(group, results)
        if group.point[VARIANT] in REPLICATED or base is None:
            continue
        sentences += [*_saved(group, base, groups), *_cost(group, base, groups)]
    return sentences + _predictions(measured(results))


def _saved(group: Group, base: Group, groups: list[Group]) -> list[str]:
    """Say how many bytes a rank keeps between steps and at the peak, over those of the rank that keeps everything."""
    mine, theirs = at(group, "optimizer_after"), at(base, "optimizer_after")
    peaks = [each.scalar(f"{prefix(each)}peak_memory_bytes") for each in (group, base)]
    if not all(peaks) or any(each is None for each in (*mine.values(), *theirs.values())):
        return []
    parts = [
        f"{axis_words(category)} {units.ratio((mine[category] or 0) / (theirs[category] or 1))}"
        for category in RESIDENT
        if theirs[category]
    ]
    predicted = " by prediction" if prefix(group) else ""
    return [
        f"{_name(group, groups)} keeps after the update{predicted}, against {axis_words(base.point[VARIANT])}: "
        f"{listing(parts)}; its peak is {units.byte_count(peaks[0])}, {units.ratio(peaks[0] / peaks[1])}."
    ]


def _cost(group: Group, base: Group, groups: list[Group]) -> list[str]:
    """Say how much longer its step takes."""
    sides = [statistics.medians(each.processes("step_s")) for each in (base, group)]
    if not all(sides):
        return []
    found = statistics.compare(*sides)
    ratio = units.ratio(*found.time_ratio)
    name = _name(group, groups)
    against = axis_words(base.point[VARIANT])
    if found.verdict is statistics.Verdict.UNCLEAR:
        return [f"A step of {name} takes {ratio} the time of {against}, which is not certain: {found.why}."]
    if found.verdict is statistics.Verdict.SAME:
        return [f"A step of {name} takes as long as one of {against}: {ratio}."]
    return [f"A step of {name} takes {ratio} the time of {against}."]


def _predictions(groups: list[Group]) -> list[str]:
    """Say how far the predicted peaks are from the measured ones."""
    pairs = [(group, *(group.scalar(f"{side}peak_memory_bytes") for side in ("predicted_", ""))) for group in groups]
    known = [(group, predicted / peak - 1) for group, predicted, peak in pairs if predicted and peak]
    if not known:
        return []
    off = [(group, share) for group, share in known if abs(share) > NEAR]
    if not off:
        worst = max(abs(share) for _, share in known)
        return [f"Every predicted peak is within {units.percent(max(worst, 1e-4))} of the measured one."]
    names = [f"{_name(group, groups)} ({units.percent(abs(share))} {'above' if share > 0 else 'below'})"
             for group, share in off]  # fmt: skip
    return [f"Predicted peaks that are more than {units.percent(NEAR)} away from the measured ones: {listing(names)}."]


def _name(group: Group, groups: list[Group]) -> str:
    alike = [each.without(SOURCE) for each in groups if each.point[VARIANT] == group.point[VARIANT]]
    more = where(group.without(SOURCE), alike) if len(alike) > 1 else ""
    return f"{axis_words(group.point[VARIANT])}{f' ({more})' if more else ''}"
