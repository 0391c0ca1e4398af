"""Shapes of the memory experiment: a step with its prediction and its measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepbench.measure.memory_timeline import ACTIVATIONS, CATEGORIES, GRADIENTS, OPTIMIZER_STATE, PARAMETERS, TEMPORARY
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group
from stepbench.reporting.steps import PHASES

PREDICTED, MEASURED = SOURCES = ("predicted", "measured")
WORDS = {
    PARAMETERS: "parameters",
    GRADIENTS: "gradients",
    OPTIMIZER_STATE: "optimizer state",
    ACTIVATIONS: "activations",
    TEMPORARY: "temporary",
}


@dataclass(frozen=True)
class Shape:
    """One step: all axes but the source.

    Attributes:
        point: axis -> value.
        sources: `predicted`, `measured` or both -> the point of the grid.
    """

    point: dict[str, Any]
    sources: dict[str, Group]

    @property
    def best(self) -> tuple[str, Group] | None:
        """The measured point where it has numbers, else the predicted one, with its source's name."""
        known = [(source, self.sources[source]) for source in (MEASURED, PREDICTED) if self.group(source)]
        return known[0] if known else None

    def group(self, source: str) -> Group | None:
        """Return the point of that source if it has numbers."""
        group = self.sources.get(source)
        return group if group is not None and group.records else None

    def peak_bytes(self, source: str) -> int | None:
        """Return the peak of the step; of a CUDA device its caching allocator's own, where that was measured.

        A measured step was predicted first, so its record holds both.
        """
        group = self.group(source)
        if group is None:
            measured = self.group(MEASURED)
            return measured.scalar("predicted_peak_bytes") if measured and source == PREDICTED else None
        asked = [group.scalar(f"allocator_{phase}_peak_bytes") for phase in PHASES]
        known = [value for value in asked if value is not None]
        return max(known) if known else group.scalar("peak_memory_bytes")

    @property
    def difference_ratio(self) -> float | None:
        """How much more was predicted than measured, as a share of the latter."""
        predicted, measured = self.peak_bytes(PREDICTED), self.peak_bytes(MEASURED)
        return predicted / measured - 1 if predicted and measured else None


def shapes(results: Results) -> list[Shape]:
    """Return the shapes of the grid in its order."""
    found: dict[tuple[Any, ...], Shape] = {}
    for group in results.groups():
        point = {axis: value for axis, value in group.point.items() if axis != "source"}
        found.setdefault(tuple(point.values()), Shape(point, {})).sources[group.point["source"]] = group
    return list(found.values())


def by_category(group: Group, moment: str) -> dict[str, int] | None:
    """Return the bytes of each category at `peak`, or at a phase's such as `forward_peak`; None where unknown."""
    values = {category: group.scalar(f"{moment}_{category}_bytes") for category in CATEGORIES}
    return None if any(value is None for value in values.values()) else values


def phases_of(group: Group) -> list[str]:
    """Return the phases that a point has, in their order."""
    return [phase for phase in PHASES if group.scalar(f"{phase}_peak_bytes") is not None]


def peak_phase(group: Group) -> str:
    """Return the phase in which the step's peak is reached, the first of several."""
    return max(phases_of(group), key=lambda phase: group.scalar(f"{phase}_peak_bytes"))


def by_size(found: Sequence[Shape]) -> list[Shape]:
    """Return one training step for each size, alike in all other axes: the kind of which most sizes have one."""
    kinds: dict[tuple[Any, ...], dict[str, Shape]] = {}
    for shape in found:
        if shape.point["passes"] == "train_step" and shape.best:
            kind = tuple(value for axis, value in shape.point.items() if axis != "size")
            kinds.setdefault(kind, {}).setdefault(shape.point["size"], shape)
    if not kinds:
        return []
    sizes = list(dict.fromkeys(shape.point["size"] for shape in found))
    most = max(kinds.values(), key=len)
    return [most[size] for size in sizes if size in most]


def over_context(found: Sequence[Shape]) -> list[list[Shape]]:
    """Return the steps that have numbers at several contexts and are alike in all else, each kind by its context."""
    kinds: dict[tuple[Any, ...], list[Shape]] = {}
    for shape in found:
        if shape.best:
            kind = tuple(value for axis, value in shape.point.items() if axis != "context")
            kinds.setdefault(kind, []).append(shape)
    several = [kind for kind in kinds.values() if len(kind) > 1]
    return [sorted(kind, key=lambda shape: shape.point["context"]) for kind in several]
