"""What the ladder contributes to the report's summary: the fastest step of each point."""

from __future__ import annotations

from stepbench.experiments.ladder.climb import Ladder, ladders
from stepbench.reporting import marks
from stepbench.reporting.columns import axis_words
from stepbench.reporting.frames import Results
from stepbench.reporting.summary import Contribution, Speed


def summarize(results: Results) -> Contribution:
    """Return the speed of the best rung of each point."""
    return Contribution(
        speeds=[speed for ladder in ladders(results.groups()) if (speed := _speed(ladder, results)) is not None]
    )


def _speed(ladder: Ladder, results: Results) -> Speed | None:
    best = ladder.best
    if best is None:
        return None
    step, tokens = best.summary(), best.tokens()
    if step is None or not step.median or not tokens or marks.quality(step.marks) == "D":
        return None
    way = ", ".join(f"{axis_words(key)} {axis_words(value)}" for key, value in best.settings.items())
    return Speed(
        size=str(best.group.point["size"]),
        context=best.group.point["context"],
        group=best.group,
        step=step,
        tokens_per_step=tokens,
        way=way,
        mfu_ratio=best.mfu_ratio(results.peaks),
        over_plain=ladder.overall,
        is_plain=False,
    )
