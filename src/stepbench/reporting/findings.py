"""Findings: what `find` of an experiment returns, and what several experiments have in common.

A finding is a value; its sentence branches on what came out, and no number in it is typed.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepbench.process.storage import write_atomically
from stepbench.reporting import main_time, points, sense, units
from stepbench.reporting.columns import axis_words, differences, varying, where
from stepbench.reporting.comparisons import Pair
from stepbench.reporting.frames import Results
from stepbench.reporting.marks import Mark, fatal
from stepbench.reporting.points import Group
from stepbench.reporting.statistics import Verdict

MAX_AXES = 2  # in a name that stands in a list; of more axes only the unusual ones are named
MAX_NAMED = 4  # names in a sentence


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: what it is about, in a word or two, such as `fastest`.
        text: one sentence or two.
        records: the records that it rests on.
        scope: the points that it is about, in words; empty for all points of the experiment.
        verdict: of a comparison: `FASTER`, `SLOWER`, `SAME` or `UNCLEAR`; None where nothing was compared.
    """

    kind: str
    text: str
    records: tuple[str, ...] = ()
    scope: str = ""
    verdict: str | None = None

    def __str__(self) -> str:
        return self.text


def said(kind: str, sentences: Iterable[str], groups: Iterable[Group] = ()) -> list[Finding]:
    """Return a finding for each sentence, all of one kind and about the same points."""
    paths = tuple(dict.fromkeys(path for group in groups for path in group.paths))
    return [Finding(kind, sentence, paths) for sentence in sentences]


def write(found: Iterable[Finding], file: Path) -> None:
    """Write findings as JSON."""
    text = json.dumps([dataclasses.asdict(each) for each in found], indent=1, ensure_ascii=False)
    write_atomically(file, text + "\n")


def read(file: Path) -> list[Finding]:
    """Return the findings that `write` has put into a file.

    Raises:
        FileNotFoundError: there is none.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    return [Finding(**each | {"records": tuple(each["records"])}) for each in content]


def listing(words: Sequence[str], separator: str = ",", *, most: int = MAX_NAMED) -> str:
    """Return `a`, `a and b`, `a, b and c`, or the first few and how many more; words with commas need `;` between."""
    if len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1} more"]
    return words[0] if len(words) == 1 else f"{f'{separator} '.join(words[:-1])} and {words[-1]}"


def capital(text: str) -> str:
    """Return a text as it begins a sentence."""
    return text[:1].upper() + text[1:]


def plural(count: int, word: str) -> str:
    """Return `1 cell`, `2 cells`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def between(texts: Sequence[str]) -> str:
    """Return `a` or `a to b`, the first and the last of ordered texts."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def apart(group: Group, shown: Iterable[Group]) -> str:
    """Return how a point differs from most of the others, for a list of names: its size and what is unusual.

    For points that differ in many axes, `where` would give names too long to read.
    """
    others = list(shown)
    axes = varying([each.point for each in others], [axis for axis in group.point if axis != "size"])
    usual = []
    if len(axes) > MAX_AXES:
        most = {axis: Counter(each.point[axis] for each in others).most_common(1)[0][0] for axis in axes}
        usual = [axis for axis in axes if group.point[axis] == most[axis]]
    return where(group, others, *(axes[1:] if usual == axes else usual))


def comparison(found: Sequence[Pair]) -> list[Finding]:
    """Return what came of the comparisons along one axis, a finding for each value that was compared."""
    values = dict.fromkeys(str(pair.value) for pair in found)
    return [_of_value([pair for pair in found if str(pair.value) == value], found) for value in values]


def general(results: Results) -> list[Finding]:
    """Return what is said of every experiment: which points have warnings, and which cells give no number."""
    return [*said("warnings", marked(results)), *said("cells without numbers", gaps(results))]


def noise(found: Sequence[tuple[Group, Sequence[Mark]]]) -> list[str]:
    """Say how many points have a warning of each kind, and which.

    Args:
        found: each point that has numbers, with its warnings.
    """
    groups = [group for group, _ in found]
    places: dict[str, list[str]] = {}
    for group, marks in found:
        for kind in dict.fromkeys(mark.kind for mark in marks):
            places.setdefault(kind, []).append(apart(group, groups))
    if not found:
        return []
    if len(found) == 1:
        return [f"The one point measured {listing([MARKED[kind][0] for kind in places] or ['has no warning'])}."]
    if not places:
        return [f"None of the {len(found)} points measured has a warning."]
    parts = [f"{len(which)} {MARKED[kind][len(which) > 1]} ({listing(which, ';')})" for kind, which in places.items()]
    return [f"Of {len(found)} points measured, {', '.join(parts)}."]


def gaps(results: Results) -> list[str]:
    """Say which cells give no number and why: failed, stale, unreadable, not measured."""
    by_label: dict[str, list[points.Row]] = {}
    for row in results.rows:
        if points.label(row) != "ok":
            by_label.setdefault(points.label(row), []).append(row)
    sentences = []
    for name, rows in by_label.items():
        reasons = dict.fromkeys(reason for row in rows for reason in points.why(row))
        told = f": {listing(list(reasons), ';')}" if reasons else ""
        are, have = ("is", "has") if len(rows) == 1 else ("are", "have")
        meaning = _MEANING.get(name, f"{are} {name}").format(are=are, have=have)
        sentences.append(f"{len(rows)} of {plural(len(results.rows), 'cell')} {meaning}{told}.")
    return sentences


def marked(results: Results) -> list[str]:
    """Say which points have warnings: those of the whole step or call, or of all that was timed without one."""
    found = []
    for group in results.groups():
        timed = [key for record in group.records for key in record.samples if sense.TIMED.fullmatch(key)]
        whole = [key for key in timed if key in main_time.WHOLE]
        summaries = [group.summary(key) for key in dict.fromkeys(whole or timed)]
        carried = dict.fromkeys(mark for summary in summaries if summary for mark in summary.marks)
        if timed or fatal(group.marks):
            found.append((group, [*carried, *fatal(mark for mark in group.marks if mark not in carried)]))
    return noise(found)


# What is said of one point that has a warning, and of several.
MARKED = {
    "noisy": ("is noisy", "are noisy"),
    "wrong": ("computed a wrong result", "computed wrong results"),
    "outliers": ("has outliers", "have outliers"),
    "drifting": ("drifts over the run", "drift over the run"),
    "throttled": ("was throttled", "were throttled"),
    "disturbed": ("was disturbed by other load", "were disturbed by other load"),
    "paging": ("contains paging", "contain paging"),
    "short": ("is too short for the clock", "are too short for the clock"),
    "impossible": ("exceeds a hardware limit", "exceed a hardware limit"),
    "parts and whole differ": (
        "has phases that do not add up to the step",
        "have phases that do not add up to the step",
    ),
}
_MEANING = {
    "oom": "ran out of memory",
    "timeout": "exceeded the time limit",
    "unsupported": "{are} not supported here",
    "error": "failed",
    "stale": "{are} stale and left out of every finding",
    "unreadable": "{have} an unreadable record",
    "not measured": "{have} not been measured yet",
}


def _of_value(pairs: Sequence[Pair], shown: Sequence[Pair]) -> Finding:
    other, base = axis_words(pairs[0].value), axis_words(pairs[0].baseline.point[pairs[0].axis])
    known = [(pair, pair.comparison) for pair in pairs if pair.comparison]
    sides = [side for pair in pairs for side in (pair.baseline, pair.other)]
    if not known:
        (found,) = said("comparison", [f"{other} and {base} cannot be compared: one or both have no numbers."], sides)
        return found
    if len(pairs) == 1:
        return _of_one(
            pairs[0], differences(pairs[0].other, [pair.other for pair in shown], pairs[0].axis), other, base
        )
    parts = []
    words = {
        Verdict.FASTER: "faster",
        Verdict.SLOWER: "slower",
        Verdict.SAME: "the same speed",
        Verdict.UNCLEAR: "no verdict",
    }
    for verdict, word in words.items():
        ratios = sorted(comparison.ratio for _, comparison in known if comparison.verdict is verdict)
        if ratios:
            span = between([units.ratio(ratio) for ratio in ratios])
            parts.append(f"{word} in {len(ratios)} ({span})")
    if len(known) < len(pairs):
        parts.append(f"{len(pairs) - len(known)} without numbers")
    text = f"{other} against {base}, {len(pairs)} comparisons: {', '.join(parts)}."
    (found,) = said("comparison", [text], sides)
    return found


def _of_one(pair: Pair, place: str, other: str, base: str) -> Finding:
    found = pair.comparison
    assert found is not None  # noqa: S101 - the caller has looked
    at = place or scope(pair.other, pair.axis)
    speed = units.ratio(found.ratio, found.low, found.high)
    if found.verdict is Verdict.UNCLEAR:
        text = f"{other} runs at {speed} the speed of {base} ({at}), no verdict: {found.why}."
    elif found.verdict is Verdict.SAME:
        seen = (
            f" A difference of {units.percent(found.visible_ratio - 1)} would have been detected."
            if found.visible_ratio
            else ""
        )
        text = f"{other} and {base} show no difference ({at}): {speed}.{seen}"
    else:
        text = f"{other} runs at {speed} the speed of {base} ({at})."
    paths = (*pair.baseline.paths, *pair.other.paths)
    return Finding("comparison", text, paths, at, found.verdict.value)


def scope(group: Group, *without: str) -> str:
    """Return what was measured at a point: its size or preset, context, batch and ranks, and its passes."""
    point = {axis: found for axis, found in group.point.items() if axis not in without}
    parts = [str(point[axis]) for axis in ("size", "preset") if axis in point]
    parts += [f"{axis} {point[axis]}" for axis in ("context", "batch", "ranks") if axis in point]
    return ", ".join(parts + [axis_words(point[axis]) for axis in ("passes",) if axis in point])
