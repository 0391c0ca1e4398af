"""On which nodes of a cluster points were measured, and whether those that are compared ran on the same ones.

Two nodes of one kind differ by some percent, in clocks, memory and what else their racks do. Processes that are spread
over nodes show that as spread between processes; but where one side ran on one node and the other side on another, a
ratio may be that of the nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepbench.pipeline.records import Record
from stepbench.reporting import columns as col
from stepbench.reporting import markup
from stepbench.reporting.points import Group

MOST_NAMED = 4


@dataclass(frozen=True)
class Placed:
    """The nodes of the points of a sentence or a row.

    Attributes:
        names: each node once, as far as records tell.
        several: whether some point ran on several nodes at once.
        apart: whether points that are compared did not run on the same nodes, as often on each.
    """

    names: tuple[str, ...] = ()
    several: bool = False
    apart: bool = False

    @property
    def sentence(self) -> str:
        """What must be said of it; empty where nothing must."""
        if self.apart:
            return f"The compared processes ran on nodes of different names: {_listed(sorted(self.names))}."
        return f"Measured on the nodes {_listed(self.names)}." if self.several else ""


UNKNOWN = Placed()
ROW = "on_nodes"  # a row's text, under a name that no axis has
COLUMN = col.value(ROW, "on different nodes", markup.escape, numeric=False, droppable=True)


def of(record: Record) -> tuple[str, ...]:
    """Return the names of the nodes that a record was measured on, node 0 first; empty where it does not tell."""
    several = record.details.get("nodes")
    found = several if isinstance(several, list) and several else [record.environment.get("node")]
    return tuple(each for each in found if isinstance(each, str) and each)


def apart(sides: Iterable[Iterable[Record]]) -> tuple[str, ...]:
    """Return the nodes' names where what is compared was not spread evenly over the same nodes; none where it was.

    A side with fewer processes may use the same nodes evenly, and of records that do not tell nothing is said.
    """
    counted = [Counter(name for record in side for name in of(record)) for side in sides]
    shares = [{name: count / side.total() for name, count in side.items()} for side in counted if side]
    names = sorted({name for side in shares for name in side})
    return tuple(names) if len(names) > 1 and any(side != shares[0] for side in shares) else ()


def row(sides: Iterable[Iterable[Record]]) -> dict[str, str]:
    """Return the raw value that `COLUMN` shows of what a row compares."""
    return {ROW: ", ".join(apart(sides))}


def placed(groups: Iterable[Group], *, compared: bool) -> Placed:
    """Return where points ran.

    Args:
        groups: the points.
        compared: whether times of different points are compared with each other.
    """
    every = list(groups)
    names = tuple(dict.fromkeys(name for group in every for record in group.records for name in of(record)))
    return Placed(
        names,
        several=len(names) > 1 and any(group.point.get("nodes", 1) > 1 for group in every),
        apart=compared and apart(group.records for group in every) != (),
    )


def _listed(names: Sequence[str]) -> str:
    shown = (
        list(names) if len(names) <= MOST_NAMED else [*names[: MOST_NAMED - 1], f"{len(names) - MOST_NAMED + 1} more"]
    )
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
