"""Findings about every experiment: which points have warnings, and which cells give no number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from stepbench.reporting import points
from stepbench.reporting.columns import MARKS_OF_ROW, RECORDS, varying, where
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, listing, plural, said
from stepbench.reporting.frames import Results
from stepbench.reporting.marks import Mark, fatal
from stepbench.reporting.points import Group
from stepbench.reporting.tables import Table

MAX_AXES = 2  # in a name that stands in a list; of more axes only the unusual ones are named

# What is said of one point that has a warning, and of several.
MARKED = {
    "noisy": ("is noisy", "are noisy"),
    "wrong": ("computed a wrong result", "computed wrong results"),
    "outliers": ("has outliers", "have outliers"),
    "drifting": ("drifts over the run", "drift over the run"),
    "throttled": ("was throttled", "were throttled"),
    "on battery": ("was measured on battery", "were measured on battery"),
    "disturbed": ("was disturbed by other load", "were disturbed by other load"),
    "paging": ("contains paging", "contain paging"),
    "launch bound": ("is bound by launches", "are bound by launches"),
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


def find(results: Results, tables: Iterable[Table]) -> list[Finding]:
    """Return which points have warnings, and which cells give no number.

    Args:
        results: the experiment's results.
        tables: its tables; a point has the warnings that they show.
    """
    return [*marked(results, tables), *gaps(results)]


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


def gaps(results: Results) -> list[Finding]:
    """Say which cells give no number and why: failed, stale, unreadable, not measured."""
    by_label: dict[str, list[points.Row]] = {}
    for row in results.rows:
        if points.label(row) != "ok":
            by_label.setdefault(points.label(row), []).append(row)
    found = []
    for name, rows in by_label.items():
        reasons = dict.fromkeys(reason for row in rows for reason in points.why(row))
        why = f": {listing(list(reasons), ';')}" if reasons else ""
        are, have = ("is", "has") if len(rows) == 1 else ("are", "have")
        meaning = _MEANING.get(name, f"{are} {name}").format(are=are, have=have)
        text = f"{len(rows)} of {plural(len(results.rows), 'cell')} {meaning}{why}."
        found += said("cells without numbers", [text], Evidence.cells(rows))
    return found


def marked(results: Results, tables: Iterable[Table]) -> list[Finding]:
    """Say which points have warnings: those that the tables show, and those that hold for every number."""
    groups = [group for group in results.groups() if group.records or fatal(group.marks)]
    if not groups:
        return []
    of_record = {path: index for index, group in enumerate(groups) for path in group.paths}
    shown: list[list[Mark]] = [[] for _ in groups]
    told_of = [bool(fatal(group.marks)) for group in groups]
    for row in (row for table in tables for row in table.rows if MARKS_OF_ROW in row):
        places = {of_record.get(path) for paths in row[RECORDS].values() for path in paths}
        if len(places) == 1 and (index := places.pop()) is not None:  # a row about one point
            shown[index] += row[MARKS_OF_ROW]
            told_of[index] = True
    pairs = [
        (group, (*found, *fatal(group.marks)))
        for group, found, is_told in zip(groups, shown, told_of, strict=True)
        if is_told
    ]
    if not pairs:
        return []
    return said("warnings", noise(pairs), Evidence.cells(row for group, _ in pairs for row in group.rows))


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
