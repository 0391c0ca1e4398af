"""Sentences made from the data. Each branches on what came out; no number in them is typed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from stepbench.reporting import frames, sense, units
from stepbench.reporting.comparisons import Pair, name_of
from stepbench.reporting.frames import Group, Results
from stepbench.reporting.marks import Mark, fatal
from stepbench.reporting.statistics import Verdict

HEADLINES = ("step_s", "call_s", "epoch_s")
MAX_AXES = 2  # that a name in a row of names is made of, before only the unusual ones are told
MAX_NAMED = 4  # more names than these in a sentence, and nobody reads on


def listing(words: Sequence[str], separator: str = ",") -> str:
    """Return `a`, `a and b`, `a, b and c`, or the first few and how many more; words with commas want `;` between."""
    if len(words) > MAX_NAMED:
        words = [*words[: MAX_NAMED - 1], f"{len(words) - MAX_NAMED + 1} more"]
    return words[0] if len(words) == 1 else f"{f'{separator} '.join(words[:-1])} and {words[-1]}"


def plural(count: int, word: str) -> str:
    """Return `1 cell`, `2 cells`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def between(texts: Sequence[str]) -> str:
    """Return `a` or `a to b`, the first and the last of ordered texts."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def where(group: Group, shown: Iterable[Group]) -> str:
    """Return what tells a point from the others: its size, and the axes in which they differ."""
    return _named(group, _varying(group, list(shown)))


def apart(group: Group, shown: Iterable[Group]) -> str:
    """Return what tells a point from most of the others, for names that stand in a row: its size and what is unusual.

    Of points that differ in many axes, `where` names so many that nobody reads on.
    """
    others = list(shown)
    axes = _varying(group, others)
    if len(axes) > MAX_AXES:
        usual = {axis: Counter(each.point[axis] for each in others).most_common(1)[0][0] for axis in axes}
        axes = [axis for axis in axes if group.point[axis] != usual[axis]] or axes[:1]
    return _named(group, axes)


def _varying(group: Group, others: Sequence[Group]) -> list[str]:
    return [axis for axis in group.point if axis != "size" and len({each.point[axis] for each in others}) > 1]


def _named(group: Group, axes: Iterable[str]) -> str:
    values = {axis: "none" if group.point[axis] is None else group.point[axis] for axis in axes}
    size = [str(group.point["size"])] if "size" in group.point else []
    return ", ".join([*size, *(f"{axis} {value}" for axis, value in values.items())])


def comparison(found: Sequence[Pair]) -> list[str]:
    """Say what came of the comparisons along one axis, a sentence for each value that was compared."""
    values = dict.fromkeys(str(pair.value) for pair in found)
    return [_of_value([pair for pair in found if str(pair.value) == value], found) for value in values]


def noise(marked: Sequence[tuple[Group, Sequence[Mark]]]) -> list[str]:
    """Say how many points carry a mark of each kind, and which.

    Args:
        marked: each point that has numbers, with its marks.
    """
    groups = [group for group, _ in marked]
    places: dict[str, list[str]] = {}
    for group, marks in marked:
        for kind in dict.fromkeys(mark.kind for mark in marks):
            places.setdefault(kind, []).append(apart(group, groups))
    if not marked:
        return []
    if not places:
        return [f"None of the {plural(len(marked), 'point')} measured carries a mark."]
    parts = [f"{len(found)} {MARKED[kind][len(found) > 1]} ({listing(found, ';')})" for kind, found in places.items()]
    return [f"Of {plural(len(marked), 'point')} measured, {', '.join(parts)}."]


def gaps(results: Results) -> list[str]:
    """Say which cells give no number and why: failed, stale, unreadable, not measured."""
    by_label: dict[str, list[dict[str, object]]] = {}
    for row in results.rows:
        if frames.label(row) != "ok":
            by_label.setdefault(frames.label(row), []).append(row)
    sentences = []
    for name, rows in by_label.items():
        reasons = dict.fromkeys(reason for row in rows for reason in frames.why(row))
        told = f": {listing(list(reasons), ';')}" if reasons else ""
        are = "is" if len(rows) == 1 else "are"
        meaning = _MEANING.get(name, f"{are} {name}").format(are=are, have="has" if len(rows) == 1 else "have")
        sentences.append(f"{plural(len(rows), 'cell')} of {len(results.rows)} {meaning}{told}.")
    return sentences


def marked(results: Results) -> list[str]:
    """Say which points carry marks: those of the whole step or call, or of all that was timed where there is none."""
    found = []
    for group in results.groups():
        timed = [key for record in group.records for key in record.samples if sense.TIMED.fullmatch(key)]
        whole = [key for key in timed if key in HEADLINES]
        summaries = [group.summary(key) for key in dict.fromkeys(whole or timed)]
        carried = dict.fromkeys(mark for summary in summaries if summary for mark in summary.marks)
        if timed or fatal(group.marks):
            found.append((group, [*carried, *fatal(mark for mark in group.marks if mark not in carried)]))
    return noise(found)


# What is said of one point that carries a mark, and of several.
MARKED = {
    "noisy": ("is noisy", "are noisy"),
    "wrong": ("is wrong", "are wrong"),
    "outliers": ("has outliers", "have outliers"),
    "drifting": ("drifts over the run", "drift over the run"),
    "throttled": ("was measured on a throttled device", "were measured on a throttled device"),
    "disturbed": ("was disturbed by others", "were disturbed by others"),
    "short": ("is too short for the clock", "are too short for the clock"),
    "impossible": ("claims what cannot be", "claim what cannot be"),
    "parts and whole differ": (
        "has phases that do not add up to the step",
        "have phases that do not add up to the step",
    ),
}
_MEANING = {
    "oom": "ran out of memory",
    "timeout": "took longer than the limit",
    "unsupported": "{are} not supported here",
    "error": "failed",
    "stale": "{are} stale and left out of every finding",
    "unreadable": "{have} a file that cannot be believed",
    "not measured": "{have} not been measured yet",
}


def _of_value(pairs: Sequence[Pair], shown: Sequence[Pair]) -> str:
    names = f"{pairs[0].value}", f"{pairs[0].baseline.point[pairs[0].axis]}"
    known = [pair for pair in pairs if pair.comparison]
    if not known:
        return f"{names[0]} could not be compared with {names[1]}: one side or both have no numbers."
    if len(pairs) == 1:
        return _of_one(pairs[0], name_of(pairs[0], shown), *names)
    parts = []
    words = {Verdict.FASTER: "faster", Verdict.SLOWER: "slower", Verdict.SAME: "the same", Verdict.UNCLEAR: "unclear"}
    for verdict, word in words.items():
        ratios = sorted(
            each.comparison.ratio for each in known if each.comparison and each.comparison.verdict is verdict
        )
        if ratios:
            span = between([units.ratio(ratio) for ratio in ratios])
            parts.append(f"{word} in {len(ratios)} ({span})")
    if len(known) < len(pairs):
        parts.append(f"{len(pairs) - len(known)} without numbers")
    return f"{names[0]} against {names[1]}, {len(pairs)} comparisons: {', '.join(parts)}."


def _of_one(pair: Pair, place: str, other: str, base: str) -> str:
    found = pair.comparison
    if found is None:
        return ""
    at = f" ({place})" if place else ""
    ratio = units.ratio(found.ratio, found.low, found.high)
    if found.verdict is Verdict.FASTER:
        return f"{other} is faster than {base}{at}: {ratio}."
    if found.verdict is Verdict.SLOWER:
        return f"{other} is slower than {base}{at}: {ratio}."
    if found.verdict is Verdict.SAME:
        seen = (
            f" An effect of {units.percent(found.visible_ratio - 1)} would have been seen."
            if found.visible_ratio
            else ""
        )
        return f"{other} and {base} show no difference{at}: {ratio}.{seen}"
    return f"Whether {other} differs from {base} is unclear{at}: {ratio}; {found.why}."
