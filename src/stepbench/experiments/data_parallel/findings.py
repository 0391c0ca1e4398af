"""Findings about data parallelism."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.data_parallel import projection, projection_check
from stepbench.experiments.data_parallel.exposure import all_reduces, best_bucket, bucket_mib, exposed, exposed_shares
from stepbench.experiments.data_parallel.tables import TARGETS
from stepbench.reporting import agreement, paired, statistics, units
from stepbench.reporting.columns import axis_words, where
from stepbench.reporting.evidence import Evidence, ranked
from stepbench.reporting.findings import Finding, listing, said
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import chosen, groups_of
from stepbench.reporting.points import Group
from stepbench.reporting.statistics import Comparison

STEP, WAIT, PAIRED = "step_s", "comm_wait_s", "paired_s"
LARGE_DISAGREEMENT = 0.1  # of the step
MODEL_AXES = ("size", "context", "batch", "ranks", "nodes", "precision", "optimizer")


def find(results: Results) -> list[Finding]:
    """Return what each strategy exposes, whether two ways to measure it agree, the best bucket, the targets."""
    models: dict[tuple[Any, ...], list[Group]] = {}
    for group in results.groups():
        models.setdefault(tuple(group.point[axis] for axis in MODEL_AXES), []).append(group)
    firsts = [groups[0] for groups in models.values()]
    found = []
    for groups in models.values():
        place = f" ({where(groups[0], firsts)})" if len(firsts) > 1 else ""
        found += _exposed(groups, place)
        found += _disagreements(groups, place)
        found += _bucket(groups, results, place)
    found += agreement.find(all_reduces(results))
    return [*found, *paired.find(results, TARGETS), *projection.find(results), *projection_check.find(results)]


def _exposed(groups: list[Group], place: str) -> list[Finding]:
    """Say what each strategy exposes, from the most to the least, and which step is the shortest."""
    known = [
        (bare.median / whole.median, group)
        for group in groups
        if group.point["strategy"] != "none" and (bare := exposed(group)) and (whole := group.summary(STEP))
    ]
    if not known:
        return []
    known.sort(key=lambda each: -each[0])
    parts = [f"{_name(group, groups)} {units.percent(max(share, 0.0))}" for share, group in known]
    every = [group for _, group in known]
    order, comparison = ranked(every, STEP)
    shares = f"Exposed communication as a share of the step{place}: {', '.join(parts)}."
    shortest = (
        f"The shortest step is that of {_name(order[0], groups)}{place}: {units.seconds(_median(order[0], STEP))}."
    )
    return [
        *said("exposed communication", [shares], Evidence.of(every, STEP, exposed, comparison=_shares_compared(every))),
        *said("shortest step", [shortest], Evidence.ranking(order, STEP, comparison)),
    ]


def _shares_compared(order: list[Group]) -> Comparison | None:
    """Return the comparison of the two largest shares that are exposed, over the medians of processes."""
    if len(order) < 2:
        return None
    sides = [exposed_shares(group) for group in order[:2]]
    return statistics.compare(sides[0], sides[1]) if all(sides) else None


def _disagreements(groups: list[Group], place: str) -> list[Finding]:
    """Say where the exposed wait and the difference of steps disagree."""
    apart, judged = [], []
    for group in groups:
        bare, waited, whole = exposed(group), group.summary(WAIT), group.summary(STEP)
        if bare is None or waited is None or whole is None or group.point["strategy"] == "none":
            continue
        judged.append(group)
        gap = bare.median - waited.median
        if abs(gap) > LARGE_DISAGREEMENT * whole.median:
            more = "more" if gap > 0 else "less"
            apart.append(f"{_name(group, groups)} ({units.seconds(abs(gap))} {more} by the difference of steps)")
    if not judged:
        return []
    text = (
        "The two measurements of exposed communication, wait and difference of steps, agree within "
        f"{units.percent(LARGE_DISAGREEMENT)} of the step for every strategy{place}."
    )
    if apart:
        text = (
            "The two measurements of exposed communication differ by more than "
            f"{units.percent(LARGE_DISAGREEMENT)} of the step{place}: {listing(apart)}. Where the difference of steps "
            "is larger, communication slows computation without a wait: it takes cores, memory bandwidth and launches."
        )
    return said("two measurements", [text], Evidence.of(judged, STEP, WAIT, exposed))


def _bucket(groups: list[Group], results: Results, place: str) -> list[Finding]:
    """Say which bucket size was the best, and which one is the best by the fit of all-reduce."""
    sized = [group for group in groups if group.point["strategy"] == "bucketed" and group.summary(STEP)]
    if not sized:
        return []
    order, comparison = ranked(sized, STEP)
    best = order[0]
    evidence = Evidence.ranking(order, STEP, comparison)
    names = listing([f"{bucket_mib(group.point)} MiB" for group in sized])
    if len(sized) == 1:
        found = said("bucket size", [f"One bucket size was measured, {names}{place}."], evidence)
    else:
        found = said("bucket size", [_best_measured(order, names, place)], evidence)
    collectives = results.others.get("collectives")
    fit = chosen(collectives, "all_reduce", groups[0].point["ranks"], groups[0].point["nodes"])
    backward, payload = best.summary("backward_s"), best.scalar("payload_bytes")
    if collectives is None or fit is None or backward is None or not payload:
        return found
    size, left_s = best_bucket(fit, backward.median, payload)
    text = (
        f"The best bucket size by latency and bandwidth of all-reduce and the backward time is "
        f"{units.byte_count(size)}{place}, with {units.seconds(left_s)} exposed if both ran side by side."
    )
    return found + said(
        "bucket size by the fit", [text], Evidence.of([best, *groups_of(collectives, fit)], "backward_s", "call_s")
    )


def _best_measured(order: list[Group], names: str, place: str) -> str:
    """Say which bucket size has the shortest step, and whether the steps that were timed in turn say the same."""
    best = order[0]
    text = (
        f"Of the bucket sizes {names}, {bucket_mib(best.point)} MiB has the shortest step{place}: "
        f"{units.seconds(_median(best, STEP))}"
    )
    in_turn = [group for group in order if group.summary(PAIRED)]
    if len(in_turn) < len(order):
        return f"{text}."
    other = min(in_turn, key=lambda group: _median(group, PAIRED))
    if other is best:
        return f"{text}; so it has among the steps that were timed in turn with torch's own."
    return (
        f"{text}; but of the steps that were timed in turn with torch's own, those of {bucket_mib(other.point)} MiB "
        f"are the shortest ({units.seconds(_median(other, PAIRED))} against {units.seconds(_median(best, PAIRED))}), "
        "so the sizes cannot be ordered."
    )


def _median(group: Group, key: str) -> float:
    summary = group.summary(key)
    return summary.median if summary else float("inf")


def _name(group: Group, groups: list[Group]) -> str:
    alike = [each for each in groups if each.point["strategy"] == group.point["strategy"]]
    bucket = f" with {group.point['bucket_mib']} MiB buckets" if len(alike) > 1 and group.point["bucket_mib"] else ""
    return f"{axis_words(group.point['strategy'])}{bucket}"
