"""Findings about checkpointing."""

from __future__ import annotations

from collections.abc import Sequence

from stepbench.experiments.checkpointing.groupings import WITHIN, Grouping, best, models, saved_of
from stepbench.reporting import units
from stepbench.reporting.columns import where
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, capital, listing, said
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group
from stepbench.reporting.statistics import Verdict

EXPECTED = "One more forward pass is a third more FLOPs."


def find(results: Results) -> list[Finding]:
    """Return for each model the best grouping and its theory, what it costs, and what a block saves."""
    every = models(results.groups())
    firsts = [groupings[0].group for groupings in every]
    found = []
    for groupings in every:
        place = f" ({where(groupings[0].group, firsts)})" if len(every) > 1 else ""
        found += _one_level(groupings, place)
        found += _nested(groupings, place)
        found += _kept(groupings, place)
    return found


def _one_level(groupings: Sequence[Grouping], place: str) -> list[Finding]:
    """Say which group size gives the smallest peak, what the theory says, and what it costs."""
    winners = best(groupings, nested=False)
    if not winners:
        return []
    sizes = [str(each.sizes[0]) for each in winners]
    tried = [each for each in groupings if not each.is_plain and not each.is_nested and each.peak_bytes]
    chosen = winners[-1]
    ratio = chosen.over_plain("peak_activation_bytes")
    against = f", {units.ratio(ratio)} that without checkpointing" if ratio is not None else ""
    blocks, theory = chosen.group.scalar("blocks"), chosen.theory_blocks
    agree = theory is not None and any(abs(int(size) - theory) < 1 for size in sizes)
    rule = f"√{blocks} = {units.number(theory)} (optimal if a block saved its input alone)"
    text = (
        f"Of {len(tried)} group sizes, {listing(sizes)} {_leave(sizes)} the smallest peak of activations{place}: "
        f"{units.byte_count(chosen.peak_bytes)}{against}. {'This agrees with' if agree else 'This is not near'} {rule}."
    )
    plain = [each.group for each in groupings if each.is_plain]
    smallest = said("one level", [text], Evidence.of([*plain, *(each.group for each in tried)]))
    return smallest + _cost(chosen, plain, place)


def _cost(grouping: Grouping, plain: Sequence[Group], place: str) -> list[Finding]:
    """Say what a grouping's step costs in time."""
    ratio, low, high = grouping.slowdown
    found = grouping.comparison
    if ratio is None or found is None:
        return []
    told = f"With {grouping.name} a step takes {units.ratio(ratio, low, high)} as long as without checkpointing{place}"
    told += {Verdict.SAME: ": no difference.", Verdict.UNCLEAR: "."}.get(found.verdict, f". {EXPECTED}")
    return said("one level", [told], Evidence.of([*plain, grouping.group], "step_s", comparison=found))


def _nested(groupings: Sequence[Grouping], place: str) -> list[Finding]:
    """Say whether nested groups give a smaller peak than the best of one level."""
    winners, flat = best(groupings, nested=True), best(groupings, nested=False)
    if not winners or not flat:
        return []
    inner, outer = winners[-1], flat[-1]
    assert inner.peak_bytes is not None  # noqa: S101 - `best` has looked
    assert outer.peak_bytes is not None  # noqa: S101
    ratio = inner.peak_bytes / outer.peak_bytes
    judged = "no smaller" if ratio >= 1 - WITHIN else "a smaller"
    told = (
        f"{capital(inner.name)} give {judged} peak than {outer.name}{place}: {units.byte_count(inner.peak_bytes)} "
        f"against {units.byte_count(outer.peak_bytes)}"
    )
    kept = (inner.kept_bytes, outer.kept_bytes)
    if all(each is not None for each in kept) and kept[0] != kept[1]:
        told += f"; they save {units.byte_count(kept[0])} against {units.byte_count(kept[1])} between the passes"
    return said("nesting", [f"{told}."], Evidence.of([inner.group, outer.group]))


def _kept(groupings: Sequence[Grouping], place: str) -> list[Finding]:
    """Say what one block saves, and which operations save most of it."""
    known: Group | None = next((each.group for each in groupings if each.group.records), None)
    found = saved_of(known) if known else []
    if known is None or not found:
        return []
    total = sum(each["saved_bytes"] for each in found)
    parts = [f"{each['operation']} ({units.percent(each['saved_bytes'] / total)})" for each in found[:3]]
    text = f"One block saves {units.byte_count(total)} for its backward pass{place}, most of it by {listing(parts)}."
    return said("saved activations", [text], Evidence.of([known]))


def _leave(sizes: Sequence[str]) -> str:
    return "block gives" if list(sizes) == ["1"] else "blocks give"
