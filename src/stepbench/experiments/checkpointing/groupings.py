"""Ways to checkpoint, each relative to the point without checkpointing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepbench.reporting.points import Group, compared
from stepbench.reporting.statistics import Comparison

GROUPING = "groups"
WITHIN = 0.01  # of the smallest peak; what lies nearer is as good


@dataclass(frozen=True)
class Grouping:
    """One way to put blocks into checkpointed groups.

    Attributes:
        group: its point of the grid.
        plain: the point without checkpointing that is the same otherwise, if the grid has it.
    """

    group: Group
    plain: Group | None

    @property
    def name(self) -> str:
        """What it is called: `none`, `groups of 2`, or `groups of 4, each in groups of 2`."""
        return ", each in ".join(f"groups of {size}" for size in self.sizes) or "none"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Blocks per group, from the outermost groups to the innermost; () without checkpointing."""
        axis = self.group.point[GROUPING]
        # Of a cell that is unsupported this may be any word.
        return tuple(int(size) for size in axis.split("-") if size.isdecimal())

    @property
    def is_plain(self) -> bool:
        """Whether nothing is checkpointed."""
        return self.group.point[GROUPING] == "none"

    @property
    def is_nested(self) -> bool:
        """Whether there are groups inside of groups."""
        return len(self.sizes) > 1

    @property
    def peak_bytes(self) -> int | None:
        """The peak of activations."""
        return self.group.scalar("peak_activation_bytes")

    @property
    def kept_bytes(self) -> int | None:
        """The activations saved between forward and backward pass."""
        return self.group.scalar("kept_activation_bytes")

    @property
    def theory_blocks(self) -> float | None:
        """The best blocks per group if a block saved its input alone."""
        return self.group.scalar("theoretical_best_blocks")

    def over_plain(self, key: str) -> float | None:
        """Return a number of bytes over that without checkpointing."""
        mine, plain = self.group.scalar(key), self.plain.scalar(key) if self.plain else None
        return mine / plain if mine is not None and plain else None

    @property
    def slowdown(self) -> tuple[float | None, float | None, float | None]:
        """The step's time over that without checkpointing, with its interval."""
        found = self.comparison
        return (None, None, None) if found is None or self.is_plain else found.time_ratio

    @property
    def comparison(self) -> Comparison | None:
        """The step without checkpointing against this one."""
        return compared(self.plain, self.group, "step_s")


def models(groups: Sequence[Group]) -> list[list[Grouping]]:
    """Return the groupings of each model and step, those that are alike in all else together."""
    found: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        rest = tuple(value for axis, value in group.point.items() if axis != GROUPING)
        found.setdefault(rest, []).append(group)
    return [_groupings(alike) for alike in found.values()]


def best(groupings: Sequence[Grouping], *, nested: bool) -> list[Grouping]:
    """Return the groupings of one level, or of more, whose peak is the smallest or next to it, the largest groups last.

    Of two with the same peak the one with larger groups is the better choice, because it keeps less.
    """
    known = [(peak, each) for each in groupings if (peak := each.peak_bytes) and not each.is_plain]
    wanted = [(peak, each) for peak, each in known if each.is_nested == nested]
    least = min((peak for peak, _ in wanted), default=0)
    found = [each for peak, each in wanted if peak <= least * (1 + WITHIN)]
    return sorted(found, key=lambda each: each.sizes)


def _groupings(alike: Sequence[Group]) -> list[Grouping]:
    plain = next((group for group in alike if group.point[GROUPING] == "none"), None)
    return [Grouping(group, plain) for group in alike]


def saved_of(group: Group) -> list[dict[str, Any]]:
    """Return the operations of one block that save tensors, the largest first."""
    found = [each for each in group.records[0].details["saved_by_one_block"] if each["saved_bytes"]]
    return sorted(found, key=lambda each: -each["saved_bytes"])
