"""Findings about the attention operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepbench.experiments.attention.slices import PASSES, slice_of
from stepbench.reporting import units
from stepbench.reporting.columns import axis_words
from stepbench.reporting.evidence import Evidence, ranked
from stepbench.reporting.findings import Finding, said
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group


def find(results: Results) -> list[Finding]:
    """Return which implementation is fastest at the longest length, what is saved, and where memory ends."""
    groups = results.groups()
    longest = _longest(groups)
    return [
        *_fastest(longest),
        *_saved(longest),
        *_memory(groups),
    ]


def _longest(groups: Sequence[Group]) -> list[Group]:
    """Return the points of the figure's slice at the longest length that two implementations have reached."""
    measured = [group for group in slice_of(groups) if group.records]
    for length in sorted({group.point["seq"] for group in measured}, reverse=True):
        found = [group for group in measured if group.point["seq"] == length]
        if len(found) > 1:
            return found
    return []


def _fastest(longest: Sequence[Group]) -> list[Finding]:
    found = []
    for name in PASSES:
        key = f"{name}_s"
        order, comparison = ranked(longest, key)
        if comparison is None:
            continue
        times = {group.point["implementation"]: _median(group, key) for group in order}
        best, worst = next(iter(times)), list(times)[-1]
        text = (
            f"At {longest[0].point['seq']} tokens {axis_words(best)} has the fastest {name} pass "
            f"({units.seconds(times[best])}); {axis_words(worst)} takes {units.ratio(times[worst] / times[best])} as "
            "long."
        )
        found += said("fastest", [text], Evidence.ranking(order, key, comparison))
    return found


def _median(group: Group, key: str) -> float:
    summary = group.summary(key)
    assert summary is not None  # noqa: S101 - `ranked` has looked
    return summary.median


def _saved(longest: Sequence[Group]) -> list[Finding]:
    known = [group for group in longest if group.scalar("saved_bytes")]
    saved = {axis_words(group.point["implementation"]): group.scalar("saved_bytes") for group in known}
    if len(saved) < 2:
        return []
    least, most = min(saved, key=lambda each: saved[each]), max(saved, key=lambda each: saved[each])
    place = f"At {longest[0].point['seq']} tokens"
    if saved[least] == saved[most]:
        text = f"{place} all implementations save {units.byte_count(saved[most])} for the backward pass."
    else:
        text = (
            f"{place} {most} saves {units.byte_count(saved[most])} for the backward pass, "
            f"{units.ratio(saved[most] / saved[least])} as much as {least} ({units.byte_count(saved[least])})."
        )
    return said("saved activations", [text], Evidence.of(known))


def _out_of_memory(groups: Sequence[Group]) -> list[Group]:
    return [
        group
        for group in slice_of(groups)
        if any(row["state"] in ("fresh", "failed") and row["status"] == "oom" for row in group.rows)
    ]


def _memory(groups: Sequence[Group]) -> list[Finding]:
    """Say for each implementation from which length on it runs out of memory, and what its scores alone take."""
    found = []
    out = _out_of_memory(groups)
    for name in dict.fromkeys(group.point["implementation"] for group in out):
        first = min((g for g in out if g.point["implementation"] == name), key=lambda group: group.point["seq"])
        point = first.point
        elements = point["batch"] * point["heads"] * point["seq"] ** 2
        scores = elements * (4 if point["dtype"] == "fp32" else 2)
        environment: dict[str, Any] = next(
            (row["record"].environment for row in first.rows if row["record"] is not None), {}
        )
        device = environment.get("device_memory_bytes") or environment.get("host_memory_bytes")
        text = (
            f"{axis_words(name)} runs out of memory from {point['seq']} tokens on: one matrix of scores takes "
            f"{point['batch']} × {point['heads']} × {point['seq']}² elements, {units.byte_count(scores)}, "
            f"and the device has {units.byte_count(device)}."
        )
        found += said("out of memory", [text], Evidence.cells(first.rows))
    return found
