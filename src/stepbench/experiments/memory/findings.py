"""Findings about memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stepbench.experiments.memory.shapes import (
    MEASURED,
    PREDICTED,
    SOURCES,
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
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, between, listing, plural, said
from stepbench.reporting.frames import Results


def find(results: Results) -> list[Finding]:
    """Return the largest category, how good predictions are, what context and training add, and what would fit."""
    found = shapes(results)
    return [
        *_largest_part(found),
        *_agreement(found),
        *_context(found),
        *_training(found),
        *_heads(found),
        *_fit(found),
    ]


def _bytes_of(found: Iterable[Shape], *sources: str) -> Evidence:
    """Return the evidence of a sentence about the bytes of shapes: the better source of each, or those named."""
    known = [
        group
        for shape in found
        for group in (
            [shape.group(source) for source in sources] if sources else [shape.best[1] if shape.best else None]
        )
    ]
    return Evidence.of([group for group in known if group is not None])


def _largest_part(found: Sequence[Shape]) -> list[Finding]:
    """Say which category is the largest at the peak of a training step, size by size."""
    leaders: dict[str, list[tuple[float, Shape]]] = {}
    for shape in by_size(found):
        parts = by_category(shape.best[1], "peak") if shape.best else None
        if parts:
            leader = max(CATEGORIES, key=lambda category: parts[category])
            leaders.setdefault(leader, []).append((parts[leader] / sum(parts.values()), shape))
    told = []
    for category, led in leaders.items():
        span = between([units.percent(share) for share in sorted(share for share, _ in led)])
        names = listing([str(shape.point["size"]) for _, shape in led])
        text = f"At the peak of a training step of {names} the largest category is {WORDS[category]}: {span}."
        told += said("largest category", [text], _bytes_of(shape for _, shape in led))
    return told


def _agreement(found: Sequence[Shape]) -> list[Finding]:
    """Say how far predictions are from measurements."""
    known = [(shape, ratio) for shape in found if (ratio := shape.difference_ratio) is not None]
    if not known:
        one_sided = [shape for shape in found if shape.best]
        text = "No shape has both a prediction and a measurement."
        return said("predictions", [text], _bytes_of(one_sided)) if one_sided else []
    worst, ratio = max(known, key=lambda each: abs(each[1]))
    off = units.share_of(ratio)
    far = off if abs(ratio) < units.LEAST_SHARE else f"at most {off}"
    place = where(worst, found)
    text = f"The predicted peak of {plural(len(known), 'shape')} is {far} off the measured one ({place})."
    return said("predictions", [text], _bytes_of([shape for shape, _ in known], *SOURCES))


def _context(found: Sequence[Shape]) -> list[Finding]:
    """Say how the peak grows from the smallest to the largest context, for each kind of step that has several."""
    told = []
    several = over_context(found)
    for group in several:
        low, high = group[0], group[-1]
        before, after = _peak(low), _peak(high)
        name = where(high, [others[-1] for others in several])
        text = (
            f"{high.point['context'] / low.point['context']:g}× the context ({low.point['context']} to "
            f"{high.point['context']}) makes the peak of {name} {units.ratio(after / before)} as large, from "
            f"{units.byte_count(before)} to {units.byte_count(after)}."
        )
        told += said("context", [text], _bytes_of((low, high)))
    return told


def _training(found: Sequence[Shape]) -> list[Finding]:
    """Say how much more a training step needs than a forward pass alone."""
    ratios, sides = [], []
    for shape in found:
        if shape.point["passes"] != "train_step" or not shape.best:
            continue
        alone = shape.point | {"passes": "forward"}
        for other in found:
            same = all(other.point[axis] == value for axis, value in alone.items() if axis != "optimizer")
            if same and other.best:
                ratios.append((_peak(shape) / _peak(other), shape))
                sides += [shape, other]
                break
    if not ratios:
        return []
    low, high = min(ratios, key=lambda each: each[0]), max(ratios, key=lambda each: each[0])
    shown = [shape for _, shape in ratios]
    text = f"A training step of {where(low[1], shown)} needs {units.ratio(low[0])} the memory of a forward pass."
    if len(ratios) > 1:
        text = (
            f"A training step needs {units.ratio(low[0])} ({where(low[1], shown)}) to {units.ratio(high[0])} "
            f"({where(high[1], shown)}) the memory of a forward pass."
        )
    return said("training", [text], _bytes_of(sides))


def _heads(found: Sequence[Shape]) -> list[Finding]:
    """Say for each step with a head of its own how its peak compares with that of all logits at once."""
    findings = []
    for shape in found:
        plain = next((each for each in found if each.point == shape.point | {"head": "whole"}), None)
        if shape.point["head"] == "whole" or plain is None:
            continue
        parts = []
        for source in (MEASURED, PREDICTED):
            mine, whole = shape.peak_bytes(source), plain.peak_bytes(source)
            if mine and whole:
                sizes = f"{units.byte_count(mine)} against {units.byte_count(whole)}"
                parts.append(f"{source} {units.ratio(mine / whole)} ({sizes})")
        if parts:
            name, place = shape.point["head"], where(shape, found, "head")
            text = f"Peak with the head {name} over all logits at once ({place}): {listing(parts)}."
            findings += said("head", [text], _bytes_of([shape, plain]))
    return findings


def _fit(found: Sequence[Shape]) -> list[Finding]:
    """Say which sizes' training steps would fit into this machine."""
    steps = [shape for shape in by_size(found) if shape.peak_bytes(PREDICTED) or shape.peak_bytes(MEASURED)]
    capacity = next((known for shape in steps if (known := _capacity(shape)) is not None), None)
    if not steps or capacity is None:
        return []
    owner, limit = capacity
    too_large = [shape for shape in steps if _peak(shape) > limit]
    held = f"A training step fits into the {units.byte_count(limit)} of this {owner} for"
    if not too_large:
        text = f"{held} every size here; the largest needs {units.byte_count(max(map(_peak, steps)))}."
        return said("fit", [text], _bytes_of(steps))
    needs = [f"{shape.point['size']} ({units.byte_count(_peak(shape))})" for shape in too_large]
    fitting = [str(shape.point["size"]) for shape in steps if shape not in too_large]
    fits = (
        f"{held} {listing(fitting)}"
        if fitting
        else f"No training step fits into the {units.byte_count(limit)} of this {owner}"
    )
    return said("fit", [f"{fits}; it would not for {listing(needs)}."], _bytes_of(steps))


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
