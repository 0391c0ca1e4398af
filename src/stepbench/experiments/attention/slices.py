"""The points that figures and findings over the sequence length show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stepbench.reporting.points import Group

OVER = ("implementation", "seq")
PASSES = ("forward", "backward")


def slice_of(groups: Sequence[Group]) -> list[Group]:
    """Return the points that share all axes but implementation and length: those of which there are most."""
    keys = [tuple(value for axis, value in group.point.items() if axis not in OVER) for group in groups]
    most = Counter(keys).most_common(1)
    return [group for group, key in zip(groups, keys, strict=True) if most and key == most[0][0]]
