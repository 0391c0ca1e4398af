"""Samples by rank: what the slowest rank of each step says, and differences within a step."""

from __future__ import annotations

from stepbench.pipeline.records import Record
from stepbench.reporting import frames, statistics
from stepbench.reporting.frames import Group
from stepbench.reporting.statistics import Summary


def slowest(record: Record, key: str) -> list[float] | None:
    """Return the samples `key` of a record, the slowest rank's at each step, or None where it has none."""
    found = frames.processes([record], key)
    return found[0] if found else None


def differences(group: Group, larger: str, smaller: str) -> Summary | None:
    """Return the summary of `larger` less `smaller`, step by step; both were measured next to each other."""
    found = []
    for record in group.records:
        sides = [slowest(record, key) for key in (larger, smaller)]
        if sides[0] and sides[1]:
            found.append([one - other for one, other in zip(sides[0], sides[1], strict=True)])
    return statistics.summarize(found) if found else None


def ratios(group: Group, above: str, below: str) -> Summary | None:
    """Return the summary of `above` over `below`, step by step; both were measured next to each other."""
    found = []
    for record in group.records:
        sides = [slowest(record, key) for key in (above, below)]
        if sides[0] and sides[1] and all(sides[1]):
            found.append([one / other for one, other in zip(sides[0], sides[1], strict=True)])
    return statistics.summarize(found) if found else None
