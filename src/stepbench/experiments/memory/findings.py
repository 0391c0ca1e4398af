"""Findings about memory."""

from __future__ import annotations

from collections.abc import Sequence

from stepbench.experiments.memory.shapes import (
    MEASURED,
    PREDICTED,
    WORDS,
    Shape,
    by_category,
    by_size,
    over_context,
    shapes,
)
from stepbench.measure.memory_timeline import CATEGORIES
from stepbench.reporting import units
from stepbench.reporting.columns import where
from stepbench.reporting.findings import Finding, listing, plural, said
from stepbench.reporting.frames import Results


def find(results: Results) -> list[Finding]:
    """Return the largest category, how good predictions are, what context and training add, and what would fit."""
    found = shapes(results)
    sentences = {
        "largest category": _largest_part(found),
        "predictions": _agreement(found),
        "context": _context(found),
        "training": _training(found),
        "fit": _fit(found),
    }
    groups = [group for shape in found for group in shape.sources.values()]
    return [each for kind, texts in sentences.items() for each in said(kind, texts, groups)]


def _largest_part(found: Sequence[Shape]) -> list[str]:
    """Say which category is the largest at the peak of a training step, size by size."""
    leaders: dict[str, list[tuple[str, float]]] = {}
    for shape in by_size(found):
        parts = by_category(shape.best[1], "peak") if shape.best else None
        if parts:
            leader = max(CATEGORIES, key=lambda category: parts[category])
            leaders.setdefault(leader, []).append((str(shape.point["size"]), parts[leader] / sum(parts.values())))
    sentences = []
    for category, sizes in leaders.items():
        shares = [units.percent(share) for _, share in sorted(sizes, key=lambda each: each[1])]
        span = shares[0] if len(shares) == 1 else f"{shares[0]} to {shares[-1]}"
        names = listing([size for size, _ in sizes])
        sentences.append(
            f"At the peak of a training step of {names} the largest category is {WORDS[category]}: {span}."
        )
    return sentences


def _agreement(found: Sequence[Shape]) -> list[str]:
    """Say how far predictions are from measurements."""
    known = [(shape, ratio) for shape in found if (ratio := shape.difference_ratio) is not None]
    if not known:
        return ["No shape has both a prediction and a measurement."] if any(shape.best for shape in found) else []
    worst, ratio = max(known, key=lambda each: abs(each[1]))
    off = units.share_of(ratio)
    far = off if abs(ratio) < units.LEAST_SHARE else f"at most {off}"
    place = where(worst, found)
    return [f"The predicted peak of {plural(len(known), 'shape')} is {far} off the measured one ({place})."]


def _context(found: Sequence[Shape]) -> list[str]:
    """Say how the peak grows from the smallest to the largest context, for each kind of step that has several."""
    sentences = []
    several = over_context(found)
    for group in several:
        low, high = group[0], group[-1]
        before, after = _peak(low), _peak(high)
        name = where(high, [others[-1] for others in several])
        sentences.append(
            f"{high.point['context'] / low.point['context']:g}× the context ({low.point['context']} to "
            f"{high.point['context']}) makes the peak of {name} {units.ratio(after / before)} as large, from "
            f"{units.byte_count(before)} to {units.byte_count(after)}."
        )
    return sentences


def _training(found: Sequence[Shape]) -> list[str]:
    """Say how much more a training step needs than a forward pass alone."""
    ratios = []
    for shape in found:
        if shape.point["passes"] != "train_step" or not shape.best:
            continue
        alone = shape.point | {"passes": "forward"}
        for other in found:
            same = all(other.point[axis] == value for axis, value in alone.items() if axis != "optimizer")
            if same and other.best:
                ratios.append((_peak(shape) / _peak(other), shape))
                break
    if not ratios:
        return []
    low, high = min(ratios, key=lambda each: each[0]), max(ratios, key=lambda each: each[0])
    shown = [shape for _, shape in ratios]
    if len(ratios) == 1:
        return [f"A training step of {where(low[1], shown)} needs {units.ratio(low[0])} the memory of a forward pass."]
    return [
        f"A training step needs {units.ratio(low[0])} ({where(low[1], shown)}) to {units.ratio(high[0])} "
        f"({where(high[1], shown)}) the memory of a forward pass."
    ]


def _fit(found: Sequence[Shape]) -> list[str]:
    """Say which sizes' training steps would fit into this machine."""
    steps = [shape for shape in by_size(found) if shape.peak_bytes(PREDICTED) or shape.peak_bytes(MEASURED)]
    capacity = next((known for shape in steps if (known := _capacity(shape)) is not None), None)
    if not steps or capacity is None:
        return []
    owner, limit = capacity
    too_large = [shape for shape in steps if _peak(shape) > limit]
    held = f"A training step fits into the {units.byte_count(limit)} of this {owner} for"
    if not too_large:
        return [f"{held} every size here; the largest needs {units.byte_count(max(map(_peak, steps)))}."]
    needs = [f"{shape.point['size']} ({units.byte_count(_peak(shape))})" for shape in too_large]
    fitting = [str(shape.point["size"]) for shape in steps if shape not in too_large]
    fits = (
        f"{held} {listing(fitting)}"
        if fitting
        else f"No training step fits into the {units.byte_count(limit)} of this {owner}"
    )
    return [f"{fits}; it would not for {listing(needs)}."]


def _capacity(shape: Shape) -> tuple[str, int] | None:
    assert shape.best is not None  # noqa: S101 - the caller has looked
    environment = shape.best[1].records[0].environment
    if environment.get("device") == "cuda":
        memory = environment.get("device_memory_bytes")
        return ("device", int(memory)) if memory else None
    memory = environment.get("host_memory_bytes")
    return ("machine", int(memory)) if memory else None


def _peak(shape: Shape) -> int:
    peak = shape.peak_bytes(MEASURED) or shape.peak_bytes(PREDICTED)
    assert peak is not None  # noqa: S101 - the caller has looked
    return peak
