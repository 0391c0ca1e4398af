"""Findings about the attention operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepbench.experiments.attention.slices import PASSES, slice_of
from stepbench.reporting import units
from stepbench.reporting.columns import axis_words
from stepbench.reporting.findings import Finding, said
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group


def find(results: Results) -> list[Finding]:
    """Return which implementation is fastest at the longest length, what is saved, and where memory ends."""
    groups = results.groups()
    longest = _longest(groups)
    return [
        *said("fastest", _fastest(longest), longest),
        *said("saved activations", _saved(longest), longest),
        *said("out of memory", _memory(groups), _out_of_memory(groups)),
    ]


def _longest(groups: Sequence[Group]) -> list[Group]:
    """Return the points of the figure's slice at the longest length that two implementations have reached."""
    measured = [group for group in slice_of(groups) if group.records]
    for length in sorted({group.point["seq"] for group in measured}, reverse=True):
        found = [group for group in measured if group.point["seq"] == length]
        if len(found) > 1:
            return found
    return []


def _fastest(longest: Sequence[Group]) -> list[str]:
    found = []
    for name in PASSES:
        times = {
            group.point["implementation"]: summary.median
            for group in longest
            if (summary := group.summary(f"{name}_s"))
        }
        if len(times) < 2:
            continue
        best, worst = min(times, key=lambda each: times[each]), max(times, key=lambda each: times[each])
        found.append(
            f"At {longest[0].point['seq']} tokens {axis_words(best)} has the fastest {name} pass "
            f"({units.seconds(times[best])}); {axis_words(worst)} takes {units.ratio(times[worst] / times[best])} as "
            "long. One process each: no verdict."
        )
    return found


def _saved(longest: Sequence[Group]) -> list[str]:
    saved = {axis_words(group.point["implementation"]): group.scalar("saved_bytes") for group in longest}
    saved = {name: count for name, count in saved.items() if count}
    if len(saved) < 2:
        return []
    least, most = min(saved, key=lambda each: saved[each]), max(saved, key=lambda each: saved[each])
    if saved[least] == saved[most]:
        return [f"All implementations save {units.byte_count(saved[most])} for the backward pass."]
    return [
        f"For the backward pass {most} saves {units.byte_count(saved[most])}, "
        f"{units.ratio(saved[most] / saved[least])} as much as {least} ({units.byte_count(saved[least])})."
    ]


def _out_of_memory(groups: Sequence[Group]) -> list[Group]:
    return [
        group
        for group in slice_of(groups)
        if any(row["state"] in ("fresh", "failed") and row["status"] == "oom" for row in group.rows)
    ]


def _memory(groups: Sequence[Group]) -> list[str]:
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
        found.append(
            f"{axis_words(name)} runs out of memory from {point['seq']} tokens on: one matrix of scores takes "
            f"{point['batch']} × {point['heads']} × {point['seq']}² elements, {units.byte_count(scores)}, "
            f"and the device has {units.byte_count(device)}."
        )
    return found
