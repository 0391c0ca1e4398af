"""Findings about data parallelism."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.data_parallel import projection
from stepbench.experiments.data_parallel.exposure import best_bucket, bucket_mib, exposed
from stepbench.experiments.data_parallel.tables import TARGETS
from stepbench.reporting import paired, units
from stepbench.reporting.columns import axis_words, where
from stepbench.reporting.findings import Finding, listing, said
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import chosen
from stepbench.reporting.points import Group

LARGE_DISAGREEMENT = 0.1  # of the step
MODEL_AXES = ("size", "context", "batch", "ranks", "precision", "optimizer")


def find(results: Results) -> list[Finding]:
    """Return what each strategy exposes, whether two ways to measure it agree, the best bucket, the targets."""
    models: dict[tuple[Any, ...], list[Group]] = {}
    for group in results.groups():
        models.setdefault(tuple(group.point[axis] for axis in MODEL_AXES), []).append(group)
    firsts = [groups[0] for groups in models.values()]
    found = []
    for groups in models.values():
        place = f" ({where(groups[0], firsts)})" if len(firsts) > 1 else ""
        found += said("exposed communication", _ladder(groups, place), groups)
        found += said("two measurements", _disagreements(groups, place), groups)
        found += said("bucket size", _bucket(groups, results, place), groups)
    return [*found, *paired.find(results, TARGETS), *projection.find(results)]


def _ladder(groups: list[Group], place: str) -> list[str]:
    """Say what each strategy exposes, from the most to the least."""
    known = [
        (bare.median / whole.median, group)
        for group in groups
        if group.point["strategy"] != "none" and (bare := exposed(group)) and (whole := group.summary("step_s"))
    ]
    if not known:
        return []
    known.sort(key=lambda each: -each[0])
    parts = [f"{_name(group, groups)} {units.percent(max(share, 0.0))}" for share, group in known]
    fastest = min((group for _, group in known), key=lambda group: _median(group, "step_s"))
    return [
        f"Exposed communication as a share of the step{place}: {', '.join(parts)}.",
        f"The shortest step is that of {_name(fastest, groups)}{place}: {units.seconds(_median(fastest, 'step_s'))}.",
    ]


def _disagreements(groups: list[Group], place: str) -> list[str]:
    """Say where the exposed wait and the difference of steps disagree."""
    apart, judged = [], 0
    for group in groups:
        bare, waited, whole = exposed(group), group.summary("comm_wait_s"), group.summary("step_s")
        if bare is None or waited is None or whole is None or group.point["strategy"] == "none":
            continue
        judged += 1
        gap = bare.median - waited.median
        if abs(gap) > LARGE_DISAGREEMENT * whole.median:
            more = "more" if gap > 0 else "less"
            apart.append(f"{_name(group, groups)} ({units.seconds(abs(gap))} {more} by the difference of steps)")
    if not judged:
        return []
    if not apart:
        return [
            "The two measurements of exposed communication, wait and difference of steps, agree within "
            f"{units.percent(LARGE_DISAGREEMENT)} of the step for every strategy{place}."
        ]
    return [
        f"The two measurements of exposed communication differ by more than {units.percent(LARGE_DISAGREEMENT)} of the "
        f"step{place}: {listing(apart)}. Where the difference of steps is larger, communication slows computation "
        "without a wait: it takes cores, memory bandwidth and launches."
    ]


def _bucket(groups: list[Group], results: Results, place: str) -> list[str]:
    """Say which bucket size was the best, and which one is the best by the fit of all-reduce."""
    sized = [group for group in groups if group.point["strategy"] == "bucketed" and group.summary("step_s")]
    fit = chosen(results.others.get("collectives"), "all_reduce", groups[0].point["ranks"])
    if not sized:
        return []
    best = min(sized, key=lambda group: _median(group, "step_s"))
    told = [f"{bucket_mib(group.point)} MiB" for group in sized]
    backward, payload = best.summary("backward_s"), best.scalar("payload_bytes")
    if fit is None or backward is None or not payload:
        return []
    size, left_s = best_bucket(fit, backward.median, payload)
    measured = (
        f"Of the bucket sizes {listing(told)}, {bucket_mib(best.point)} MiB gives the shortest step{place}"
        if len(sized) > 1
        else f"One bucket size was measured, {told[0]}{place}"
    )
    return [
        f"{measured}. The best by latency and bandwidth of all-reduce and the backward time is "
        f"{units.byte_count(size)}, with {units.seconds(left_s)} exposed if both ran side by side."
    ]


def _median(group: Group, key: str) -> float:
    summary = group.summary(key)
    return summary.median if summary else float("inf")


def _name(group: Group, groups: list[Group]) -> str:
    alike = [each for each in groups if each.point["strategy"] == group.point["strategy"]]
    bucket = f" with {group.point['bucket_mib']} MiB buckets" if len(alike) > 1 and group.point["bucket_mib"] else ""
    return f"{axis_words(group.point['strategy'])}{bucket}"
