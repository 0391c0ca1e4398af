"""The points of the reference variant, which tables, figures and findings are about."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from stepbench.experiments.end_to_end.cell import Cell
from stepbench.reporting import agreement
from stepbench.reporting.agreement import Agreement
from stepbench.reporting.frames import Results
from stepbench.reporting.points import REPLICATE, Group

REFERENCE = {
    "precision": "fp32",
    "implementation": "eager",
    "attention": "naive",
    "head": "whole",
    "optimizer": "adamw_foreach",
}
COMPARED = {
    "precision": "Precision",
    "implementation": "Compilation",
    "attention": "Attention",
    "head": "Head and loss",
}


def agreements(results: Results) -> list[Agreement]:
    """Return what two kinds of cells measured: phases with other passes, and steps of other experiments."""
    defaults = {
        each.name: each.default
        for each in dataclasses.fields(Cell)
        if each.default is not dataclasses.MISSING and each.name != REPLICATE
    }
    return agreement.of_steps(results, defaults)


def reference(groups: Sequence[Group], passes: str | None = "train_step") -> list[Group]:
    """Return the points of the reference variant: each axis' usual value, or its first where the grid lacks that."""
    wanted = REFERENCE | ({"passes": passes} if passes else {})
    for axis, value in wanted.items():
        values = list(dict.fromkeys(group.point[axis] for group in groups))
        chosen = value if value in values else next(iter(values), None)
        groups = [group for group in groups if group.point[axis] == chosen]
    return list(groups)


def by_size(groups: Sequence[Group]) -> list[Group]:
    """Return one point for each size: at the context that most sizes have, the middle one of several such."""
    wanted = reference(groups)
    sizes: dict[int, set[str]] = {}
    for group in wanted:
        sizes.setdefault(group.point["context"], set()).add(group.point["size"])
    most = max(map(len, sizes.values()), default=0)
    common = sorted(context for context, found in sizes.items() if len(found) == most)
    shown: dict[str, Group] = {}
    for group in sorted(wanted, key=lambda group: group.point["context"] != common[(len(common) - 1) // 2]):
        shown.setdefault(group.point["size"], group)
    order = list(dict.fromkeys(group.point["size"] for group in wanted))
    return [shown[size] for size in order]
