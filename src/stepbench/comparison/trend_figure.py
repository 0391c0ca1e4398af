"""The figure of the trends: the time of each point over the versions of code and software."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from stepbench.comparison.trend import LEAST, MOST_SHOWN, Trend
from stepbench.reporting import figures, units

CHARACTERS = 120  # what fits above all steps together


@figures.styled
def trend(found: Sequence[Trend]) -> Figure:
    """Draw the time of each point over its steps, with a line where code or software changed."""
    if not found:
        return figures.nothing(f"No point was measured on {LEAST} days or with {LEAST} versions yet.")
    shown = found[:MOST_SHOWN]
    drawn = figures.new(
        0.5 + 1.7 * len(shown),
        "Time of each point in the order of its measurements; a dashed line marks where code or software changed, and "
        "what is written at its top says what.",
    )
    for axes, each in zip(drawn.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
        unit = units.pick(units.SECONDS, [step.summary.median for step in each.steps])
        for position, step in enumerate(each.steps):
            figures.point(
                axes, position, 0, step.summary, along="y", of=each, what=step.day, marker="o", color=figures.INK
            )
            if step.causes:
                axes.axvline(position - 0.5, color=figures.MUTED, linestyle="--", linewidth=0.9)
                axes.annotate(
                    _cut(step.causes, CHARACTERS // len(each.steps)),
                    (position - 0.5, 1.0),
                    xycoords=("data", "axes fraction"),
                    xytext=(3, -2),
                    textcoords="offset points",
                    va="top",
                    fontsize=7.5,
                    color=figures.MUTED,
                )
        axes.set_title(f"{each.of.experiment}: {each.of.words}", fontsize=9)
        axes.set_xticks(range(len(each.steps)), [step.day for step in each.steps], fontsize=7.5)
        axes.set_xlim(-0.6, len(each.steps) - 0.4)
        low, high = axes.get_ylim()
        axes.set_ylim(low - 0.05 * (high - low), high + 0.35 * (high - low))  # room for what is written at the top
        axes.yaxis.set_major_formatter(lambda value, _, size=unit.size: f"{value / size:.4g}")
        axes.set_ylabel(f"time in {unit.name}")
    return drawn


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
