"""What end to end contributes to the report's summary: the fastest training steps."""

from __future__ import annotations

import dataclasses
from typing import Any

from stepbench.experiments.end_to_end import step_table
from stepbench.experiments.end_to_end.cell import Cell
from stepbench.reporting import marks
from stepbench.reporting.columns import axis_words
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group, compared
from stepbench.reporting.summary import Contribution, Speed

SHAPE = ("size", "context", "batch", "passes")
DEFAULTS: dict[str, Any] = {
    field.name: field.default
    for field in dataclasses.fields(Cell)
    if field.name not in (*SHAPE, "replicate") and field.default is not dataclasses.MISSING
}
BETWEEN = ("precision", "implementation", "attention")  # said of every step, also where they are the plain ones


def summarize(results: Results) -> Contribution:
    """Return the speed of each training step that was measured; the report takes the fastest ones."""
    groups = [group for group in results.groups() if group.point["passes"] == "train_step" and group.records]
    return Contribution(speeds=[speed for group in groups if (speed := _speed(group, results)) is not None])


def _speed(group: Group, results: Results) -> Speed | None:
    step, tokens = group.summary("step_s"), group.scalar("tokens_per_step")
    if step is None or not step.median or not tokens or marks.quality(step.marks) == "D":
        return None
    shape = {axis: group.point[axis] for axis in SHAPE}
    plain = results.group(**shape, **DEFAULTS)
    is_plain = all(group.point[axis] == value for axis, value in DEFAULTS.items())
    return Speed(
        size=str(group.point["size"]),
        context=group.point["context"],
        group=group,
        step=step,
        tokens_per_step=tokens,
        way=_way(group),
        mfu_ratio=step_table.utilisation(group, results.peaks)[0],
        over_plain=None if is_plain else compared(plain, group, "step_s"),
        is_plain=is_plain,
    )


def _way(group: Group) -> str:
    told = [axis_words(group.point[axis]) for axis in BETWEEN[:2]]
    told.append(f"{axis_words(group.point['attention'])} attention")
    others = [axis for axis, value in DEFAULTS.items() if axis not in BETWEEN and group.point[axis] != value]
    return ", ".join([*told, *(f"{axis_words(axis)} {axis_words(group.point[axis])}" for axis in others)])
