"""What changed: the same cells measured by other code or other software, the old numbers against the new ones.

Cells are compared whose definition and machine are the same and whose source or software differ. Old and new were
measured at different times, so a difference may be the machine's; `stepbench ab` measures both in turn.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepbench.comparison.known import Known, Point
from stepbench.pipeline import fingerprint
from stepbench.pipeline.fingerprint import SOURCE, Difference
from stepbench.pipeline.records import Record
from stepbench.reporting import conditions, main_time, marks, statistics
from stepbench.reporting.marks import Mark
from stepbench.reporting.statistics import Comparison, Verdict

SOFTWARE = "software"
VARIES = (SOURCE, SOFTWARE)
IN_AN_ENVIRONMENT = ("torch", "triton", "cuda", "python")  # what another Python environment can bring
MAX_MODULES = 3
PEAK = "peak_memory_bytes"  # of the allocator or of a timeline; that of a process scatters
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(T.*)?")
_VERSION = re.compile(r"(?:([a-z]+)[= ])?(\d+(?:\.\d+)+.*)")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True)
class Change:
    """A point that was measured by other code or software before.

    Attributes:
        point: which.
        causes: in what source and software differ.
        old, new: the measurements.
        comparison: of the new times against the old ones: above 1 it is faster now.
        warnings: about either side.
        settles: the command that would give a verdict, where there is none; None where no command can.
    """

    point: Point
    causes: tuple[Difference, ...]
    old: tuple[Known, ...]
    new: tuple[Known, ...]
    comparison: Comparison
    warnings: tuple[Mark, ...]
    settles: str | None

    @property
    def size(self) -> float:
        """How large the change is, whatever its direction."""
        return abs(math.log(self.comparison.ratio)) if self.comparison.ratio > 0 else 0.0


@dataclass(frozen=True)
class Peak:
    """A point whose peak memory is another one than before.

    Attributes:
        point: which.
        causes: in what source and software differ.
        old, new: the measurements.
        old_bytes, new_bytes: the largest peak of each side.
    """

    point: Point
    causes: tuple[Difference, ...]
    old: tuple[Known, ...]
    new: tuple[Known, ...]
    old_bytes: int
    new_bytes: int

    @property
    def ratio(self) -> float:
        """The new peak over the old one: above 1 it needs more now."""
        return self.new_bytes / self.old_bytes


@dataclass(frozen=True)
class Changes:
    """All changes.

    Attributes:
        found: the times, the largest change first.
        peaks: the peaks of memory that are not the same, the largest change first.
        redefined: how many points have only numbers of another definition or machine to be compared with.
        waiting: how many points were measured before and have no number of today's code and software yet.
    """

    found: tuple[Change, ...]
    peaks: tuple[Peak, ...] = ()
    redefined: int = 0
    waiting: int = 0

    def by_cause(self) -> list[list[Change]]:
        """Return the changes that have the same causes together, the largest first."""
        groups: dict[tuple[Difference, ...], list[Change]] = {}
        for change in self.found:
            groups.setdefault(change.causes, []).append(change)
        return list(groups.values())

    def has(self, verdict: Verdict) -> bool:
        """Return whether some change has this verdict."""
        return any(change.comparison.verdict is verdict for change in self.found)


def find(points: Mapping[Point, Sequence[Known]], root: Path, since: str | None = None) -> Changes:
    """Return what has changed on a machine.

    Args:
        points: all measurements that are known of each point, the earliest first.
        root: a folder of the repository.
        since: a date, a commit or a version of torch (`2.12`, `triton=3.6`): the numbers from then are the old ones;
            None for those of the last code and software before today's.

    Raises:
        ValueError: `since` is none of these.
    """
    is_old = _old(since, root) if since is not None else lambda _: True
    found: list[Change] = []
    peaks: list[Peak] = []
    redefined = waiting = 0
    for point, measured in points.items():
        new = [each for each in measured if each.fresh]
        if not new:
            waiting += 1
            continue
        others = [each for each in measured if not each.fresh]
        alike = [each for each in others if is_alike(each.record, new[0].record)]
        redefined += bool(others and not alike)
        if old := [each for each in alike if is_old(each.record)]:
            last = version(old[-1].record)
            sides = [each for each in old if version(each.record) == last], new
            found += _change(point, *sides)
            peaks += _peak(point, *sides)
    return Changes(
        tuple(sorted(found, key=lambda change: -change.size)),
        tuple(sorted(peaks, key=lambda peak: -abs(math.log(peak.ratio)))),
        redefined,
        waiting,
    )


def cause(difference: Difference) -> str:
    """Return what differs in few words, such as `torch 2.12.1 → 2.13.0` or `module kernels/triton/forward`."""
    if difference.part != SOURCE:
        return f"{difference.key} {difference.before} → {difference.after}"
    name = difference.key.removeprefix("stepbench.").removeprefix("stepbench/").replace(".", "/")
    how = " (new)" if difference.added else " (gone)" if difference.removed else ""
    return f"module {name}{how}"


def causes(found: Sequence[Difference]) -> str:
    """Return what differs, the software first, and of many modules the first few."""
    software = [cause(each) for each in found if each.part != SOURCE]
    modules = [cause(each) for each in found if each.part == SOURCE]
    more = len(modules) - MAX_MODULES
    shown = modules[:MAX_MODULES] if more > 1 else modules
    return "; ".join([*software, *shown, *([f"{more} more modules"] if more > 1 else [])])


def _change(point: Point, old: Sequence[Known], new: Sequence[Known]) -> Iterator[Change]:
    """Yield the change of a point's time, if both sides have one."""
    timed = [[each for each in side if main_time.median(each.record)] for side in (old, new)]
    if not all(timed):
        return
    sides = [_undisturbed(side) for side in timed]
    medians = [[main_time.median(each.record) or 0.0 for each in side] for side in sides]
    comparison = statistics.compare(medians[0], medians[1])
    found = _causes(sides[0][0].record, sides[1][0].record)
    warnings = [
        mark
        for name, side in zip(("old", "new"), sides, strict=True)
        for mark in marks.about(name, _warnings([each.record for each in side]))
    ]
    settles = None
    if comparison.verdict is Verdict.UNCLEAR:
        settles = _command(point, found, sides[0][-1].record, sides[1][-1].record)
    yield Change(point, found, tuple(sides[0]), tuple(sides[1]), comparison, tuple(dict.fromkeys(warnings)), settles)


def _peak(point: Point, old: Sequence[Known], new: Sequence[Known]) -> Iterator[Peak]:
    """Yield the change of a point's peak memory, if it is one; load and clocks change none."""
    most = [max((each.record.scalars.get(PEAK) or 0 for each in side), default=0) for side in (old, new)]
    if all(most) and abs(math.log(most[1] / most[0])) > statistics.NEGLIGIBLE:
        yield Peak(point, _causes(old[0].record, new[0].record), tuple(old), tuple(new), most[0], most[1])


def _causes(old: Record, new: Record) -> tuple[Difference, ...]:
    return tuple(each for each in fingerprint.difference(old.fingerprint, new.fingerprint) if each.part in VARIES)


def _warnings(records: Sequence[Record]) -> tuple[Mark, ...]:
    summary = statistics.summarize(main_time.processes(records))
    return (*summary.marks, *conditions.find(records))


def _undisturbed(side: Sequence[Known]) -> list[Known]:
    """Return the measurements that nothing has disturbed, or all where there are no others."""
    quiet = [each for each in side if marks.quality(conditions.find([each.record])) < "C"]
    return quiet or list(side)


def _command(point: Point, found: Sequence[Difference], old: Record, new: Record) -> str | None:
    """Return the command that measures both sides in turn; None where they cannot be on one machine at once."""
    words = ["stepbench ab"]
    for difference in found:
        if difference.part == SOFTWARE and difference.key not in IN_AN_ENVIRONMENT:
            return None
    if any(each.part == SOURCE for each in found):
        commits = [record.environment.get("git_commit") for record in (old, new)]
        if commits[0] is None or commits[0] == commits[1]:
            return None
        words.append(f"--a {str(commits[0])[:10]}")
    if software := [each for each in found if each.part == SOFTWARE]:
        wanted = ", ".join(f"{each.key} {each.before}" for each in software)
        words.append(f"--a-python '<a Python with {wanted}>'")
    return " ".join([*words, point.experiment, point.text])


def version(record: Record) -> str:
    """Return what identifies the code and the software of a record."""
    return json.dumps([record.fingerprint.get(part) for part in VARIES], sort_keys=True)


def is_alike(old: Record, new: Record) -> bool:
    """Return whether two records have the same definition and machine."""
    return all(each.part in VARIES for each in fingerprint.difference(old.fingerprint, new.fingerprint))


def _old(since: str, root: Path) -> Callable[[Record], bool]:
    """Return whether a record is one of the old ones.

    Raises:
        ValueError: `since` is no date, commit or version.
    """
    if _DATE.fullmatch(since):
        return lambda record: record.started < since
    if (match := _VERSION.fullmatch(since)) is not None:
        name, version = match.group(1) or "torch", match.group(2)
        return lambda record: _is_version(_software(record).get(name), version)
    ancestors = _ancestors(since, root)
    if ancestors:
        return lambda record: record.environment.get("git_commit") in ancestors
    if _COMMIT.fullmatch(since):  # of a repository that is not here
        return lambda record: str(record.environment.get("git_commit")).startswith(since)
    raise ValueError(f"`--since` must be a date (2026-11-30), a commit or a version (2.12, triton=3.6), got {since!r}")


def _software(record: Record) -> Mapping[str, object]:
    found = record.fingerprint.get(SOFTWARE)
    return found if isinstance(found, Mapping) else {}


def _is_version(found: object, wanted: str) -> bool:
    """Return whether a version is `wanted` or one below it: 2.12.1 is one of 2.12 and none of 2.1."""
    return isinstance(found, str) and re.match(rf"{re.escape(wanted)}(?!\d)", found) is not None


def _ancestors(ref: str, root: Path) -> frozenset[str]:
    """Return a commit and all before it; empty where git does not know it."""
    command = ["git", "-c", "safe.directory=*", "-C", str(root), "rev-list", "--end-of-options", ref]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return frozenset()
    return frozenset(done.stdout.split()) if done.returncode == 0 else frozenset()
