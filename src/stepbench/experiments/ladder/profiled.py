"""The operators of a profiled eager step, which say what the distance from the least time is made of."""

from __future__ import annotations

from dataclasses import dataclass

from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group


@dataclass(frozen=True)
class Operator:
    """An operator of a step: its name without `aten::`, its time per step, and its share of all operators' time."""

    name: str
    seconds: float
    share_ratio: float


@dataclass(frozen=True)
class Profiled:
    """A point of the experiment `profile` with the operators of its step, the one that takes the most time first."""

    group: Group
    operators: tuple[Operator, ...]


def find(results: Results, size: str) -> Profiled | None:
    """Return the first training step of a size that was profiled eagerly, or None where there is none."""
    profiles = results.others.get("profile")
    for group in profiles.groups() if profiles else ():
        wanted = {"size": size, "passes": "train_step", "implementation": "eager"}
        if group.records and group.point.items() >= wanted.items() and (operators := _operators(group)):
            return Profiled(group, operators)
    return None


def _operators(group: Group) -> tuple[Operator, ...]:
    rows = group.records[0].details.get("operators") or []
    clock = "device_s" if any(row["device_s"] for row in rows) else "self_s"
    seconds: dict[str, float] = {}
    for row in rows:
        name = row["name"].removeprefix("aten::")
        seconds[name] = seconds.get(name, 0.0) + row[clock]
    whole = sum(seconds.values())
    order = sorted(seconds, key=lambda name: seconds[name], reverse=True)
    return tuple(Operator(name, seconds[name], seconds[name] / whole) for name in order) if whole else ()
