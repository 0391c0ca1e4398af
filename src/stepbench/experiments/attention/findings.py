"""What the attention operators show, in sentences made from the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepbench.experiments.attention.slices import PASSES, slice_of
from stepbench.reporting import units
from stepbench.reporting.frames import Group, Results


def find(results: Results) -> list[str]:
    """Say who is fastest at the longest length, what is saved for backward, and where memory ends."""
    groups = results.groups()
    return [*_fastest(groups), *_saved(groups), *_memory(groups)]


def _longest(groups: Sequence[Group]) -> list[Group]:
    """Return the points of the figure's slice at the longest length that two implementations have reached."""
    measured = [group for group in slice_of(groups) if group.records]
    for length in sorted({group.point["seq"] for group in measured}, reverse=True):
        found = [group for group in measured if group.point["seq"] == length]
        if len(found) > 1:
            return found
    return []


def _fastest(groups: Sequence[Group]) -> list[str]:
    found = []
    for name in PASSES:
        times = {
            group.point["implementation"]: summary.median
            for group in _longest(groups)
            if (summary := group.summary(f"{name}_s"))
        }
        if len(times) < 2:
            continue
        best, worst = min(times, key=lambda each: times[each]), max(times, key=lambda each: times[each])
        length = _longest(groups)[0].point["seq"]
        found.append(
            f"At {length} tokens the fastest {name} pass is that of {best} ({units.seconds(times[best])}); "
            f"{worst} takes {units.ratio(times[worst] / times[best])} as long. One process each: no verdict."
        )
    return found


def _saved(groups: Sequence[Group]) -> list[str]:
    kept = {group.point["implementation"]: group.scalar("saved_bytes") for group in _longest(groups)}
    kept = {name: saved for name, saved in kept.items() if saved}
    if len(kept) < 2:
        return []
    least, most = min(kept, key=lambda each: kept[each]), max(kept, key=lambda each: kept[each])
    if kept[least] == kept[most]:
        return [f"All implementations keep {units.byte_count(kept[most])} for the backward pass."]
    return [
        f"For the backward pass {most} keeps {units.byte_count(kept[most])}, {units.ratio(kept[most] / kept[least])} "
        f"what {least} keeps ({units.byte_count(kept[least])})."
    ]


def _memory(groups: Sequence[Group]) -> list[str]:
    """Say for each implementation that ran out of memory from which length on, and what its scores alone would take."""
    found = []
    out = [group for group in slice_of(groups) if "oom" in group.status]
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
            f"{name} runs out of memory from {point['seq']} tokens on: one matrix of scores takes "
            f"{point['batch']} × {point['heads']} × {point['seq']}² elements, {units.byte_count(scores)}, "
            f"and the device has {units.byte_count(device)}."
        )
    return found
