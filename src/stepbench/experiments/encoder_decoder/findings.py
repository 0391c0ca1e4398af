"""What is found about whole epochs, in sentences."""

from __future__ import annotations

from stepbench.experiments.encoder_decoder import epochs, tables
from stepbench.reporting import comparisons, units
from stepbench.reporting.findings import where
from stepbench.reporting.frames import Group, Results

STARVED = 0.1  # of an epoch; below that the loader keeps up


def find(results: Results) -> list[str]:
    """Return the highest throughput, what waiting for data costs, what disk and further ranks change."""
    known = [(group, epochs.row(group)) for group in results.groups() if group.summary(epochs.KEY)]
    if not known:
        return []
    groups = [group for group, _ in known]
    best, row = max(known, key=lambda each: each[1]["samples_per_s"])
    return [
        f"The highest throughput is {units.number(row['samples_per_s'])} samples/s "
        f"({units.number(row['tokens_per_s'])} tokens/s), with {_named(best, groups)}; an epoch of "
        f"{row['samples_per_epoch']} samples takes {units.seconds(row['epoch_median_s'])}.",
        *_waiting(known),
        *_disk(results, groups),
        *_ranks(results, groups),
    ]


def _waiting(known: list[tuple[Group, dict[str, float]]]) -> list[str]:
    """Say who waits for data, and for how much of the epoch."""
    groups = [group for group, _ in known]
    starved = [(group, row) for group, row in known if (row["data_wait_ratio"] or 0) > STARVED]
    if not starved:
        worst = max(row["data_wait_ratio"] or 0 for _, row in known)
        told = units.percent(worst)
        return [f"The loader keeps up: at no point the median wait for data is above {told} of an epoch."]
    group, row = max(starved, key=lambda each: each[1]["data_wait_ratio"])
    return [
        f"{len(starved)} of {len(known)} points wait for data for more than {units.percent(STARVED)} of the epoch, the "
        f"most with {_named(group, groups)}: {units.percent(row['data_wait_ratio'])}."
    ]


def _disk(results: Results, groups: list[Group]) -> list[str]:
    """Say what reading from disk costs, a sentence for each pair."""
    sentences = []
    for pair in comparisons.pairs(results, "data", "memory", epochs.KEY):
        if pair.comparison is None:
            continue
        ratio = units.ratio(*pair.comparison.time_ratio)
        sentences.append(
            f"From disk an epoch takes {ratio} the time of one from memory ({_told(pair.other, groups, 'data')}): "
            f"{pair.comparison.verdict}, because {pair.comparison.why}."
        )
    return sentences


def _ranks(results: Results, groups: list[Group]) -> list[str]:
    """Say what is left of each further rank."""
    rows = tables.scaling(results).rows
    if not rows:
        return []
    parts = []
    for row in rows:
        group = next(each for each in groups if all(row[axis] == found for axis, found in each.point.items()))
        parts.append(f"{row['ranks']} ranks {units.ratio(row['speedup_ratio'])} ({_told(group, groups, 'ranks')})")
    return [f"Over the samples/s of one rank, with the batch of each kept: {', '.join(parts)}."]


def _told(group: Group, groups: list[Group], axis: str) -> str:
    """Return what tells a point from others, without an axis that its sentence names anyway."""
    return where(group.without(axis), [each.without(axis) for each in groups]) or f"preset {group.point['preset']}"


def _named(group: Group, groups: list[Group]) -> str:
    return where(group, groups) or f"the preset {group.point['preset']}"
