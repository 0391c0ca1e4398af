"""Findings about what fits."""

from __future__ import annotations

from collections.abc import Sequence

from stepbench.experiments.fits import ways
from stepbench.experiments.fits.ways import BATCH, CONTEXT, Way
from stepbench.reporting import units
from stepbench.reporting.columns import differences
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, listing, said
from stepbench.reporting.frames import Results


def find(results: Results) -> list[Finding]:
    """Return the smallest card for each way to train, what the least hungry way buys, and how good predictions are."""
    found = ways.predicted(results)
    cards = ways.cards(results.settings)
    by_kind = [finding for kind in _kinds(found) for finding in _smallest_cards(kind, found, cards)]
    return [*by_kind, *_saved(found), *_edges(results)]


def _kinds(found: Sequence[Way]) -> list[list[Way]]:
    """Return the ways that are alike in all but the size, together."""
    kinds: dict[tuple[object, ...], list[Way]] = {}
    for way in found:
        kinds.setdefault(tuple(way.group.point[axis] for axis in ways.AXES), []).append(way)
    return list(kinds.values())


def _smallest_cards(kind: Sequence[Way], found: Sequence[Way], cards: dict[str, int]) -> list[Finding]:
    if not cards:
        return []
    parts = []
    for way in kind:
        card = next((name for name, memory_bytes in cards.items() if way.peak_bytes <= memory_bytes), None)
        into = f"fits {card}" if card else "fits none of the cards"
        parts.append(f"{way.group.point['size']} needs {_needed(way)} and {into}")
    named = differences(kind[0].group, [way.group for way in found], "size")
    place = f" ({named})" if named else ""
    text = f"A training step at context {CONTEXT} and batch {BATCH}{place}: {listing(parts, ';', most=len(parts))}"
    return said("card", [f"{text} (predicted)."], Evidence.of([way.group for way in kind]))


def _saved(found: Sequence[Way]) -> list[Finding]:
    """Say for the largest size whose ways need different amounts what the most and the least hungry one need."""
    several: dict[str, list[Way]] = {}
    for way in found:
        several.setdefault(str(way.group.point["size"]), []).append(way)
    sizes = [each for each in several.values() if len({units.byte_count(way.peak_bytes) for way in each}) > 1]
    if not sizes:
        return []
    members = max(sizes, key=lambda each: each[0].group.scalar("parameters"))
    most, least = (choose(members, key=lambda way: way.peak_bytes) for choose in (max, min))
    groups = [way.group for way in members]
    texts = [f"{_needed(way)} with {differences(way.group, groups)}" for way in (most, least)]
    place = f"{most.group.point['size']} at context {CONTEXT} and batch {BATCH}"
    return said("saved", [f"{place} needs {listing(texts)} (predicted)."], Evidence.of([most.group, least.group]))


def _needed(way: Way) -> str:
    return units.byte_count(way.peak_bytes) + (" on each rank" if way.group.point["ranks"] > 1 else "")


def _edges(results: Results) -> list[Finding]:
    known = [group for group in ways.edges(results) if group.scalar("largest_batch")]
    if not known:
        return []
    off = {id(group): group.scalar("predicted_largest_batch") / group.scalar("largest_batch") - 1 for group in known}
    worst = max(known, key=lambda group: abs(off[id(group)]))
    last, expected = worst.scalar("largest_batch"), worst.scalar("predicted_largest_batch")
    limit = units.byte_count(worst.scalar("limit_bytes"))
    agreed = (
        "as predicted" if expected == last else f"and {expected} was predicted ({units.difference(off[id(worst)])})"
    )
    count = f"Of {len(known)} edges tried the worst predicted: " if len(known) > 1 else ""
    text = (
        f"{count}{worst.point['size']} at context {worst.point['context']} runs with a batch of {last} within {limit} "
        f"and not with {last + 1}, {agreed}."
    )
    return said("edge", [text], Evidence.of(known if count else [worst]))
