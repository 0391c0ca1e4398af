"""How Snakemake learns what is stale.

Snakemake decides by file times, which do not reflect what a number depends on. So the input function of a measuring
rule returns nothing for a fresh record. For a stale one it returns a marker file that it has just written, that is
newer than the record and that lists the reasons. Snakemake then runs exactly those cells again and prints the marker's
path. Tables, figures and the writeup are kept up to date the same way.
"""

from __future__ import annotations

import datetime
import inspect
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells, fingerprint, history, inputs, planning, reach
from stepbench.pipeline.bench import STATE_FOLDER, Bench
from stepbench.pipeline.state import States
from stepbench.process.storage import write_atomically

InputFunction = Callable[[Any], list[str]]
Answer = TypeVar("Answer")

# The experiments by which machines are compared.
COMPARED = ("end_to_end", "attention", "collectives", "encoder_decoder")
COMPARISON, CHANGES, EXPLORATION, WRITEUP = "comparison", "changes", "exploration", "writeup"
# The modules that render what several experiments contribute to.
RENDERED_BY: dict[str, tuple[str, ...]] = {
    COMPARISON: ("stepbench.comparison.document",),
    CHANGES: ("stepbench.comparison.changes_document", "stepbench.comparison.trend_figure"),
    EXPLORATION: ("stepbench.comparison.exploration",),
    WRITEUP: ("stepbench.reporting.writeup", "stepbench.comparison.brief"),
}
FIRST_REPORT = "report/first.html"
PARTS = ("tables", "figures", "findings")
SHOWN = ("sizes", "models", "vocabulary", "data", "network", "cards")  # the settings that renderings show

_MARKERS = f"{STATE_FOLDER}/stale/"


def with_signature(function: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
    """Store a function's signature on it.

    Snakemake reads it twice per job, and otherwise Python computes it each time: 4 % of a dry run's time.
    """
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function


def needs(states: States, name: str) -> InputFunction:
    """Return the input function of an experiment's measuring rule.

    It returns nothing for a fresh record, the files that the cell reads (tokens, shards) for a missing one, and these
    and a marker file for one that is stale or will be retried. What a cell builds on is read by it: it is measured
    again after any of these.
    """
    bench = states.bench
    cell_type = experiments.load(name).cell
    names = [axis.name for axis in cells.axes(cell_type)]
    configured = bench.named(name)
    folder = f"{bench.root}/results/{bench.machine}/{name}"

    def function(wildcards: Any) -> list[str]:
        text = ",".join(f"{axis}~{wildcards[axis]}" for axis in names)
        if (cell := configured.get(text)) is None:
            cell = cells.parse(cell_type, text)
            bench.check_cell(cell)
        below = cell.builds_on(bench.grid(name))
        read = [str(bench.path(each)) for each in below]
        if not os.path.exists(f"{folder}/{text}.json"):  # noqa: PTH110 - called for every cell of a large grid
            return inputs.of(bench, cell) + read
        state = states.of(cell)
        if state.kind == "fresh":
            return [] if all(states.of(each).kind == "fresh" for each in below) else read
        marker = [] if state.kind == "missing" else [_mark(bench, bench.path(cell), state.reasons)]
        return marker + inputs.of(bench, cell) + read

    return function


def records(bench: Bench, name: str) -> list[str]:
    """Return the records that an experiment's tables, figures and findings read: its own and those of its `READS`."""
    return bench.paths(name, *experiments.load(name).reads)


def first_records(bench: Bench) -> list[str]:
    """Return the records of which a first report is made."""
    return [str(bench.path(cell)) for name in bench.names for cell in bench.grid(name, first=True)]


def first_report(states: States) -> InputFunction:
    """Return the input function of the target that makes a first report: nothing where it would be the whole one.

    That is a scale without cells of a first report, and where no cell at all is missing.
    """
    bench = states.bench

    def function(_wildcards: Any) -> list[str]:
        if first_records(bench) and any(states.of(cell).kind != "fresh" for cell in bench.cells):
            return [FIRST_REPORT]
        return []

    return function


def rendered(states: States, name: str) -> InputFunction:
    """Return the input function of a rendering rule, which runs it again when what it shows has changed.

    Snakemake compares the file times of the records. This adds what file times do not show: a grid that has grown or
    shrunk, a deleted record, and changed rendering code.

    Args:
        states: the states of the configured cells.
        name: an experiment, `comparison`, `changes` or `writeup`.
    """
    bench = states.bench

    def function(_wildcards: Any) -> list[str]:
        stamp = _stamp(bench, name)
        try:
            found = json.loads((bench.root / stamp).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            found = None
        shown = _shown(bench, name)
        # Snakemake does not make a missing file if its products exist.
        missing = [
            f"{path} is missing"
            for path in shown["records"]
            if not os.path.exists(f"{bench.root}/{path}")  # noqa: PTH110 - called for every cell of a large grid
        ]
        changes = [*map(str, fingerprint.difference(found, shown)), *missing]
        return [_mark(bench, stamp, changes)] if changes else []

    return function


def are_marked(files: Iterable[str]) -> bool:
    """Return whether the files of an input function include a marker."""
    return any(path.startswith(_MARKERS) for path in files)


def mark_rendered(bench: Bench, name: str) -> None:
    """Store that a rendering rule has run with the current code and grid."""
    write_atomically(bench.root / _stamp(bench, name), json.dumps(_shown(bench, name), indent=1))


@with_signature
def priority(wildcards: Any) -> int:
    """Return the priority of a measuring job: replicate 0 of all cells runs before replicate 1 of any."""
    return 1_000_000 - int(getattr(wildcards, "replicate", 0))


def compared(bench: Bench) -> list[str]:
    """Return the experiments by which machines are compared and that have cells on this machine."""
    return [name for name in COMPARED if name in bench.names]


def _shown(bench: Bench, name: str) -> dict[str, Any]:
    """Return the fingerprint of what is rendered: the records, the rendering code, and the settings shown."""
    more: dict[str, Any] = {}
    if name in RENDERED_BY:
        paths = bench.paths(*(compared(bench) if name == COMPARISON else bench.names))
        modules = RENDERED_BY[name]
    else:
        paths = records(bench, name)
        modules = tuple(f"{experiments.load(name).module}.{part}" for part in PARTS)
    if name == COMPARISON:
        more = {"others": _others(bench, COMPARED), "prices": bench.settings.get("prices", {})}
    if name == CHANGES:
        machine = bench.root / "results" / bench.machine
        earlier = [entry for path in history.recorded(machine) for entry in sorted(history.folder(path).iterdir())]
        more = {"history": dict.fromkeys((entry.relative_to(machine).as_posix() for entry in earlier), True)}
    if name == EXPLORATION:
        more = {"others": _others(bench, experiments.names())}
    if name == WRITEUP:
        loaded = [experiments.load(each) for each in bench.names]
        modules += tuple(f"{each.module}.summary" for each in loaded if each.has_summary)
        more = {
            "declared": {each.name: [each.title, each.question, *each.reads] for each in loaded},
            "costs": {key: bench.settings.get(key) for key in ("prices", "budget")},
        }
    return {
        **more,
        "records": dict.fromkeys(paths, True),
        fingerprint.SOURCE: reach.source(*modules, memo=bench.memo("source")),
        "settings": {key: bench.settings.get(key) for key in SHOWN},
        "protocol": bench.protocol,
    }


def _others(bench: Bench, names: Sequence[str]) -> dict[str, str]:
    """Return a digest of each file that is read of these experiments besides this machine's configured records."""
    merged = (path for path in (bench.root / "results").glob("*/*/*~*.json") if path.parts[-2] in names)
    theirs = [path for path in merged if path.parts[-3] != bench.machine]
    ungridded = [bench.root / path for path in planning.left_over(bench) if path.parts[-2] in names]
    memo = bench.memo("content")
    found = {path.relative_to(bench.root).as_posix(): fingerprint.content(path, memo) for path in (*theirs, *ungridded)}
    published = (reach.ROOT / "comparison" / "published").glob("*.json")
    return found | {path.name: fingerprint.digest(path.read_bytes()) for path in sorted(published)}


def _mark(bench: Bench, path: Path, reasons: Iterable[str]) -> str:
    # Each in its own folder: Snakemake lists a folder once and would miss a marker that appears in it later.
    marker = Path(_MARKERS, *path.parts[1:], "reasons.txt")
    full = bench.root / marker
    full.parent.mkdir(parents=True, exist_ok=True)
    target, now = bench.root / path, time.time()
    # The time changes the text: Snakemake treats a newer input with the same content as unchanged.
    said = [*reasons, f"found at {datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat()}"]
    full.write_text("".join(f"{line}\n" for line in said), encoding="utf-8")
    if target.exists() and target.stat().st_mtime >= now:
        # The record is from the future (another clock, `touch -d`). The marker must be newer than the record but not
        # in the future, because Snakemake removes a new record that is older than its input.
        os.utime(target, (now - 1, now - 1))
    os.utime(full, (now, now))
    return str(marker)


def _stamp(bench: Bench, name: str) -> Path:
    return Path(STATE_FOLDER, "rendered", bench.machine, f"{name}.json")
