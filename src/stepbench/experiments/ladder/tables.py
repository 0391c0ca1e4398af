"""The table of the ladder: the plain step, and each rung with what it bought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepbench.experiments.ladder import profiled
from stepbench.experiments.ladder.climb import AXIS, BASE, STEP, Climbed, Ladder, ladders
from stepbench.reporting import columns as col
from stepbench.reporting import marks, statistics, units
from stepbench.reporting.columns import axis_words
from stepbench.reporting.frames import Results
from stepbench.reporting.peaks import Peaks
from stepbench.reporting.steps import ENERGY, token_energy_joules
from stepbench.reporting.tables import Table

FOOT = "plain"
TOP = 8
CAPTION = (
    "Each rung is the fastest step before it with one measure more; both were timed one after the other in the same "
    "processes, in turns from process to process. Bought: the speed per token with the measure over that without, with "
    f"its {100 * statistics.RATIO_LEVEL:.0f} % interval over process medians. A rung stays if a token takes less time "
    "with it in the middle process; one that does not is left out of those after it. Over plain: the speed per token "
    "over that of the plain step. MFU: FLOPs of the model's matrix products over time and measured peak. Least time: "
    "that of its products at the measured peak, half of causal attention's among them, and of the optimizer's bytes at "
    "the rate of a copy; distance: the time of the step over it. Peak memory on a CPU: predicted, of eager steps. The "
    "plain step: fp32, eager, naive attention, AdamW as a loop, all logits at once."
)


def ladder(results: Results) -> Table:
    """Return the plain step and each rung: time, tokens/s, MFU, peak memory, what it bought, and whether it stays."""
    rows: list[dict[str, Any]] = []
    for each in ladders(results.groups()):
        if each.foot is not None:
            rows.append(_row(each, each.foot, results.peaks, BASE))
        rows += [_row(each, rung, results.peaks, STEP) for rung in each.rungs]
    unit = col.time_unit(rows, [STEP])
    axes = col.rest(results.axes, AXIS)
    columns = [
        *col.axis_columns(rows, axes),
        col.value(AXIS, AXIS, axis_words, numeric=False),
        col.interval(STEP, unit, "whole step"),
        col.value("tokens_per_s", "tokens/s", units.number),
        col.value("mfu_ratio", "MFU", units.percent),
        col.value("peak_bytes", "peak memory", units.byte_count),
        col.value("token_energy_joules", "energy of a token", units.joules, droppable=True),
        col.ratio("bought", "bought"),
        col.word("verdict"),
        col.word("stays"),
        col.ratio("over_plain", "over plain"),
        col.value("least_s", "least time", units.seconds, secondary=True),
        col.value("distance_ratio", "distance", units.ratio),
        col.WARNINGS,
        col.STATUS,
    ]
    caption = f"{CAPTION} {ENERGY}" if any(row["token_energy_joules"] is not None for row in rows) else CAPTION
    return Table("The ladder to the fastest step", caption, rows, columns, "The grid has no rung.", axes)


def operators(results: Results) -> Table:
    """Return the operators that take the most time of an eager step, as the experiment `profile` has recorded it."""
    rows: list[dict[str, Any]] = []
    for size in dict.fromkeys(group.point["size"] for group in results.groups()):
        if (found := profiled.find(results, size)) is not None:
            axes = {axis: found.group.point[axis] for axis in ("size", "context", "batch", "precision")}
            at = {**axes, col.RECORDS: {"profile": found.group.paths}, **col.warned(found.group.marks)}
            rows += [
                {**at, "operator": each.name, "time_s": each.seconds, "share_ratio": each.share_ratio}
                for each in found.operators[:TOP]
            ]
    columns = [
        *col.axis_columns(rows, ("size", "context", "batch", "precision")),
        col.word("operator"),
        col.value("time_s", "time", units.seconds),
        col.value("share_ratio", "share of all operators", units.percent),
        col.WARNINGS,
    ]
    caption = (
        f"The {TOP} operators that take the most time in a profiled eager training step with naive attention, all "
        "phases together: the time of their kernels on a device, otherwise their time on the host without "
        "the operators that they call. What a rung can save is in them, and in the time between them."
    )
    empty = "No training step of these sizes was profiled."
    return Table("What an eager step is made of", caption, rows, columns, empty)


def _row(whole: Ladder, rung: Climbed, peaks: Peaks, which: str) -> dict[str, Any]:
    summary, found = rung.summary(which), rung.comparison if which == STEP else None
    own = [mark for mark in summary.marks if mark not in rung.group.marks] if summary else []
    values: dict[str, Any] = {
        **col.facts(rung.group, marks.about(which, own)),
        "settings": _text(rung.settings) if which == STEP else "",
        **col.statistics_of(STEP, summary),
        "tokens_per_s": rung.tokens_per_s(which),
        "mfu_ratio": rung.mfu_ratio(peaks, which),
        "peak_bytes": rung.peak_bytes(which),
        "token_energy_joules": token_energy_joules(rung.group) if which == STEP else None,
        **col.ratio_of("bought", found),
        "verdict": found.verdict.value if found else None,
        "stays": None if found is None else "yes" if rung.kept else "no",
        **col.ratio_of("over_plain", whole.over_plain(rung) if which == STEP else None),
        "least_s": rung.least_s(peaks, which),
        "distance_ratio": rung.distance_ratio(peaks, which),
    }
    return values if which == STEP else values | {AXIS: FOOT}


def _text(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{axis_words(key)} {axis_words(value)}" for key, value in settings.items())
