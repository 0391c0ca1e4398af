"""Findings: what `find` of an experiment returns, and what several experiments have in common.

A finding is a value; its sentence branches on what came out, and no number in it is typed.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepbench.process.storage import write_atomically
from stepbench.reporting import units
from stepbench.reporting.columns import axis_words, differences
from stepbench.reporting.comparisons import Pair
from stepbench.reporting.evidence import EVIDENT, SCOPE, Certainty, Evidence, scope, worded
from stepbench.reporting.marks import Mark
from stepbench.reporting.points import Group
from stepbench.reporting.statistics import Verdict

CONTRADICTION = "disagreement"  # the kind of a finding that two numbers disagree
MAX_NAMED = 4  # names in a sentence
FULL_STOP = re.compile(r"\.(?=\s+[A-Z]|$)")
# How sentences call axes and values else.
ALSO: dict[Any, str] = {"seq": "tokens", "train_step": "training step"}


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: what it is about, in a word or two, such as `fastest`.
        sentence: one sentence or two, without what the evidence adds.
        evidence: the rows that it speaks of.
        apart: of two numbers that disagree: the second over the first.
    """

    kind: str
    sentence: str
    evidence: Evidence
    apart: float | None = None

    @property
    def text(self) -> str:
        """The sentence with what must stand beside it."""
        return " ".join(filter(None, (self.sentence, self.evidence.caveat)))

    @property
    def verdict(self) -> str | None:
        """`FASTER`, `SLOWER`, `SAME` or `UNCLEAR` of a comparison; None where times were not compared."""
        return self.evidence.comparison.verdict.value if self.evidence.comparison else None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Told:
    """A finding as its JSON holds it.

    Attributes:
        kind, text, verdict: as in `Finding`.
        ratio: of a comparison of times: how many times as fast; of two numbers that disagree: how far apart.
        records, scope, warnings: as in `Evidence`.
        quality: the worst of its numbers.
        certainty: a value of `Certainty`.
    """

    kind: str
    text: str
    records: tuple[str, ...]
    scope: str
    warnings: tuple[Mark, ...]
    quality: str
    certainty: str
    verdict: str | None
    ratio: float | None = None


def said(kind: str, sentences: Iterable[str], evidence: Evidence) -> list[Finding]:
    """Return a finding for each sentence, all of one kind and about the same rows; none where a row has quality D."""
    if evidence.certainty is Certainty.SILENT:
        return []
    return [Finding(kind, sentence, evidence) for sentence in sentences]


def placed(sentence: str, evidence: Evidence) -> str:
    """Return a sentence with what its points share and it does not name, in brackets before its full stop."""
    return _with(sentence, [each for each in evidence.shared if each[0] in SCOPE])


def scoped(found: Iterable[Finding], groups: Sequence[Group]) -> list[Finding]:
    """Return findings whose sentences name what their points share and other points of the tables have otherwise.

    What is in `SCOPE` is named where any two points differ in it. Another axis, such as the precision, is named where
    one of the sentence's points was measured with another value of it alone.

    Args:
        found: the findings.
        groups: all points that their experiment's tables have rows of.
    """
    by_path = {path: group for group in groups for path in group.paths}
    told = []
    for each in found:
        points = [by_path[path].point for path in each.evidence.records if path in by_path]
        several = [(axis, value) for axis, value in each.evidence.shared if _differs(axis, points, groups)]
        told.append(dataclasses.replace(each, sentence=_with(each.sentence, several)))
    return told


def _differs(axis: str, points: Sequence[Mapping[str, Any]], groups: Sequence[Group]) -> bool:
    """Return whether there are points with another value of an axis; see `scoped`."""
    alike = {_without(axis, point) for point in points}
    others = [group.point for group in groups if axis in SCOPE or _without(axis, group.point) in alike]
    return len({point.get(axis) for point in others}) > 1


def _without(axis: str, point: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(value for name, value in point.items() if name != axis)


def _with(text: str, shared: Iterable[tuple[str, Any]]) -> str:
    """Return sentences with what is shared and not named, in brackets before the first full stop."""
    missing = ", ".join(worded(axis, value) for axis, value in shared if not _is_named(axis, value, text))
    if not missing:
        return text
    end = FULL_STOP.search(text)
    first, rest = (text[: end.start()], text[end.start() :]) if end else (text, "")
    return f"{first[:-1]}, {missing}){rest}" if first.endswith(")") else f"{first} ({missing}){rest}"


def _is_named(axis: str, value: Any, text: str) -> bool:
    """Return whether a text has a value as a word, with its axis before or behind it where a number needs one."""
    name, word = (re.escape(axis_words(each)) for each in (axis, value))
    if isinstance(value, bool):
        word = re.escape(worded(axis, value))
    elif axis not in EVIDENT:
        word = rf"{name} (?:of )?{word}|{word} {ALSO.get(axis, name)}"
    return re.search(rf"(?<![\w.~-])(?:{word}|{ALSO.get(value, word)})(?![\w-]|\.\d)", text) is not None


def write(found: Iterable[Finding], file: Path) -> None:
    """Write findings as JSON."""
    content = [dataclasses.asdict(told(each)) for each in found]
    write_atomically(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def told(found: Finding) -> Told:
    """Return a finding with its text."""
    evidence = found.evidence
    return Told(
        found.kind,
        found.text,
        evidence.records,
        evidence.scope,
        evidence.warnings,
        evidence.quality,
        evidence.certainty.value,
        found.verdict,
        found.apart or (evidence.comparison.ratio if evidence.comparison else None),
    )


def read(file: Path) -> list[Told]:
    """Return the findings that `write` has put into a file.

    Raises:
        FileNotFoundError: there is none.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    values = [
        each | {"records": tuple(each["records"]), "warnings": tuple(Mark(**mark) for mark in each["warnings"])}
        for each in content
    ]
    return [Told(**each) for each in values]


def listing(words: Sequence[str], separator: str = ",", *, most: int = MAX_NAMED) -> str:
    """Return `a`, `a and b`, `a, b and c`, or the first few and how many more; words with commas need `;` between."""
    if len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1} more"]
    return words[0] if len(words) == 1 else f"{f'{separator} '.join(words[:-1])} and {words[-1]}"


def capital(text: str) -> str:
    """Return a text as it begins a sentence."""
    return text[:1].upper() + text[1:]


def plural(count: int, word: str, ending: str = "s") -> str:
    """Return `1 cell`, `2 cells`."""
    return f"{count} {word}{'' if count == 1 else ending}"


def between(texts: Sequence[str]) -> str:
    """Return `a` or `a to b`, the first and the last of ordered texts."""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def comparison(found: Sequence[Pair]) -> list[Finding]:
    """Return what came of the comparisons along one axis, a finding for each value that was compared."""
    values = dict.fromkeys(str(pair.value) for pair in found)
    pairs = ([pair for pair in found if str(pair.value) == value] for value in values)
    return [each for of_value in pairs for each in _of_value(of_value, found)]


def _of_value(pairs: Sequence[Pair], shown: Sequence[Pair]) -> list[Finding]:
    other, base = axis_words(pairs[0].value), axis_words(pairs[0].baseline.point[pairs[0].axis])
    known = [(pair, pair.comparison) for pair in pairs if pair.comparison]
    sides = [side for pair in pairs for side in (pair.baseline, pair.other)]
    if not known:
        text = f"{other} and {base} cannot be compared: one or both have no numbers."
        return said("comparison", [text], Evidence.cells(row for side in sides for row in side.rows))
    if len(pairs) == 1:
        place = differences(pairs[0].other, [pair.other for pair in shown], pairs[0].axis, *SCOPE)
        return _of_one(pairs[0], place, other, base)
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
    return said("comparison", [text], Evidence.of(sides, pairs[0].key))


def _of_one(pair: Pair, place: str, other: str, base: str) -> list[Finding]:
    found = pair.comparison
    assert found is not None  # noqa: S101 - the caller has looked
    at = ", ".join(filter(None, (scope([pair.other], pair.axis), place)))
    speed = units.ratio(found.ratio, found.low, found.high)
    text = f"{other} runs at {speed} the speed of {base} ({at})."
    if found.verdict is Verdict.SAME:
        seen = (
            f" A difference of {units.percent(found.visible_ratio - 1)} would have been detected."
            if found.visible_ratio
            else ""
        )
        text = f"{other} and {base} show no difference ({at}): {speed}.{seen}"
    evidence = Evidence.of((pair.baseline, pair.other), pair.key, comparison=found)
    return said("comparison", [text], evidence)
