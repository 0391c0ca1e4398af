"""Findings about whole epochs."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.encoder_decoder import epochs, tables
from stepbench.reporting import comparisons, units
from stepbench.reporting.columns import differences
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, plural, said
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group, compared
from stepbench.reporting.statistics import Verdict

STARVED = 0.1  # of an epoch; below that the loader keeps up


def find(results: Results) -> list[Finding]:
    """Return the highest throughput, the wait for data, and what disk and more ranks change."""
    known = [(group, epochs.row(group)) for group in results.groups() if group.summary(epochs.KEY)]
    if not known:
        return []
    groups = [group for group, _ in known]
    order = sorted(known, key=lambda each: -each[1]["samples_per_s"])
    best, row = order[0]
    second = order[1][0] if len(order) > 1 else None
    comparison = compared(second, best, epochs.KEY, lambda group: group.scalar("samples_per_epoch"))
    highest = (
        f"The highest throughput is {units.number(row['samples_per_s'])} samples/s "
        f"({units.number(row['tokens_per_s'])} tokens/s), with {_named(best, groups)}; an epoch of "
        f"{row['samples_per_epoch']} samples takes {units.seconds(row['epoch_median_s'])}."
    )
    return [
        *said("throughput", [highest], Evidence.ranking(groups, epochs.KEY, comparison)),
        *said("waiting for data", _waiting(known), Evidence.of(groups, "data_wait_s", epochs.KEY)),
        *_disk(results, groups),
        *_ranks(results, groups),
    ]


def _waiting(known: list[tuple[Group, dict[str, Any]]]) -> list[str]:
    """Say which points wait for data, and for how much of the epoch."""
    groups = [group for group, _ in known]
    starved = [(group, row) for group, row in known if (row["data_wait_ratio"] or 0) > STARVED]
    if not starved:
        worst = max(row["data_wait_ratio"] or 0 for _, row in known)
        return [f"The loader keeps up: the median wait for data is at most {units.percent(worst)} of an epoch."]
    group, row = max(starved, key=lambda each: each[1]["data_wait_ratio"])
    return [
        f"{len(starved)} of {plural(len(known), 'point')} wait for data for more than {units.percent(STARVED)} of the "
        f"epoch; the longest wait is {units.percent(row['data_wait_ratio'])}, with {_named(group, groups)}."
    ]


def _disk(results: Results, groups: list[Group]) -> list[Finding]:
    """Return what reading from disk costs, a finding for each pair."""
    found = []
    for pair in comparisons.pairs(results, "data", "memory", epochs.KEY):
        if pair.comparison is None:
            continue
        ratio = units.ratio(*pair.comparison.time_ratio)
        judged = ": no difference" if pair.comparison.verdict is Verdict.SAME else ""
        place = _told(pair.other, groups, "data")
        text = f"From disk an epoch takes {ratio} the time of one from memory ({place}){judged}."
        sides = (pair.baseline, pair.other)
        found += said("disk", [text], Evidence.of(sides, epochs.KEY, comparison=pair.comparison))
    return found


def _ranks(results: Results, groups: list[Group]) -> list[Finding]:
    """Return the throughput of several ranks relative to one."""
    found = []
    for row in tables.scaling(results).rows:
        group = next(each for each in groups if all(row[axis] == value for axis, value in each.point.items()))
        alone = results.group(**group.point | {"ranks": 1})
        assert alone is not None  # noqa: S101 - the table has looked
        comparison = compared(alone, group, epochs.KEY, lambda group: group.scalar("samples_per_epoch"))
        place = _told(group, groups, "ranks")
        text = (
            f"{plural(row['ranks'], 'rank')}, each with the same batch, process {units.ratio(row['speedup_ratio'])} "
            f"the samples/s of one ({place}): a scaling efficiency of {units.percent(row['efficiency_ratio'])}."
        )
        found += said("scaling", [text], Evidence.of((alone, group), epochs.KEY, comparison=comparison))
    return found


def _told(group: Group, groups: list[Group], axis: str) -> str:
    """Return how a point differs from others, without an axis that its sentence names anyway."""
    return differences(group, groups, axis) or f"preset {group.point['preset']}"


def _named(group: Group, groups: list[Group]) -> str:
    return differences(group, groups) or f"the preset {group.point['preset']}"
