"""How Snakemake learns what is stale.

Snakemake decides by file times, and file times say nothing about what a number depends on. So the input function of a
measuring rule answers with nothing when a record is fresh; when it is stale, the answer is a marker file that was
written just now, is newer than the record, and holds the reasons. Snakemake then re-runs exactly those cells and names
the marker. Tables, figures and the writeup are held up to date the same way.
"""

from __future__ import annotations

import datetime
import inspect
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells, fingerprint, inputs, planning, reach
from stepbench.pipeline.bench import STATE_FOLDER, Bench
from stepbench.pipeline.state import States
from stepbench.process.storage import write_atomically

InputFunction = Callable[[Any], list[str]]
Answer = TypeVar("Answer")

# The experiments that machines are compared by.
COMPARED = ("end_to_end", "attention", "collectives", "encoder_decoder")
COMPARISON, WRITEUP = "comparison", "writeup"
# Which modules render what is rendered from several experiments.
RENDERED_BY: dict[str, tuple[str, ...]] = {
    COMPARISON: ("stepbench.comparison.document",),
    WRITEUP: ("stepbench.reporting.writeup",),
}
PARTS = ("tables", "figures", "findings")

_MARKERS = f"{STATE_FOLDER}/stale/"


def asked_of_every_job(function: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
    """Have a function carry its signature.

    Snakemake looks at it twice for each job, and Python works it out anew each time: 4 % of a dry run's time.
    """
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function


def needs(states: States, name: str) -> InputFunction:
    """Return the input function of an experiment's measuring rule.

    It answers with nothing for a fresh record, with the files that the cell reads (tokens, shards) for a missing one,
    and with a marker as well for one that is stale or has to be tried again.
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
        if not os.path.exists(f"{folder}/{text}.json"):  # noqa: PTH110 - asked of every cell of a large grid
            return inputs.of(bench, cell)
        state = states.of(cell)
        if state.kind == "fresh":
            return []
        marker = [] if state.kind == "missing" else [_mark(bench, bench.path(cell), state.reasons)]
        return marker + inputs.of(bench, cell)

    return function


def records(bench: Bench, name: str) -> list[str]:
    """Return the records that an experiment's tables, figures and findings are made of: its own, and those it reads."""
    return bench.paths(name, *experiments.load(name).reads)


def rendered(states: States, name: str) -> InputFunction:
    """Return the input function that has a rendering rule run again when what it shows has changed.

    File times of the records are left to Snakemake; this adds what they cannot tell: that the grid has grown or shrunk,
    that a record was deleted, and that the code which renders has changed.

    Args:
        states: those of the configuration.
        name: an experiment, `comparison` or `writeup`.
    """
    bench = states.bench

    def function(_wildcards: Any) -> list[str]:
        stamp = _stamp(bench, name)
        try:
            found = json.loads((bench.root / stamp).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            found = None
        shown = _shown(bench, name)
        # Snakemake leaves a missing file alone where what is made from it is there.
        missing = [
            f"{path} is missing"
            for path in shown["records"]
            if not os.path.exists(f"{bench.root}/{path}")  # noqa: PTH110 - asked of every cell of a large grid
        ]
        changes = [*map(str, fingerprint.difference(found, shown)), *missing]
        return [_mark(bench, stamp, changes)] if changes else []

    return function


def are_marked(files: Iterable[str]) -> bool:
    """Return whether there is a marker among the answers of an input function."""
    return any(path.startswith(_MARKERS) for path in files)


def mark_rendered(bench: Bench, name: str) -> None:
    """Note that a rendering rule has run with today's code and grid."""
    write_atomically(bench.root / _stamp(bench, name), json.dumps(_shown(bench, name), indent=1))


@asked_of_every_job
def priority(wildcards: Any) -> int:
    """Return the priority of a measuring job: replicate 0 of all cells runs before replicate 1 of any."""
    return 1_000_000 - int(getattr(wildcards, "replicate", 0))


def compared(bench: Bench) -> list[str]:
    """Return the experiments that machines are compared by and that have cells on this one."""
    return [name for name in COMPARED if name in bench.names]


def _shown(bench: Bench, name: str) -> dict[str, Any]:
    """Return the fingerprint of what is rendered: the list of records, the code that renders, the settings shown."""
    more: dict[str, Any] = {}
    if name in RENDERED_BY:
        paths = bench.paths(*(bench.names if name == WRITEUP else compared(bench)))
        modules = RENDERED_BY[name]
    else:
        paths = records(bench, name)
        modules = tuple(f"{experiments.load(name).module}.{part}" for part in PARTS)
    if name == COMPARISON:
        more = {"others": _others(bench), "prices": bench.settings.get("prices", {})}
    return {
        **more,
        "records": dict.fromkeys(paths, True),
        fingerprint.SOURCE: reach.source(*modules, memo=bench.memo("source")),
        "settings": {key: bench.settings.get(key) for key in ("sizes", "vocabulary", "data", "network")},
        "protocol": bench.protocol,
    }


def _others(bench: Bench) -> dict[str, str]:
    """Return a digest of each file that a comparison reads beside this machine's configured records."""
    merged = (path for path in (bench.root / "results").glob("*/*/*~*.json") if path.parts[-2] in COMPARED)
    theirs = [path for path in merged if path.parts[-3] != bench.machine]
    unasked = [bench.root / path for path in planning.left_over(bench) if path.parts[-2] in COMPARED]
    memo = bench.memo("content")
    found = {path.relative_to(bench.root).as_posix(): fingerprint.content(path, memo) for path in (*theirs, *unasked)}
    published = (reach.ROOT / "comparison" / "published").glob("*.json")
    return found | {path.name: fingerprint.digest(path.read_bytes()) for path in sorted(published)}


def _mark(bench: Bench, path: Path, reasons: Iterable[str]) -> str:
    # In a folder of its own: Snakemake lists a folder once, and would not see a second marker that appears in it later.
    marker = Path(_MARKERS, *path.parts[1:], "reasons.txt")
    full = bench.root / marker
    full.parent.mkdir(parents=True, exist_ok=True)
    target, now = bench.root / path, time.time()
    # The time makes it another text: Snakemake takes a newer input for the old one where it says what it said before.
    said = [*reasons, f"found at {datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat()}"]
    full.write_text("".join(f"{line}\n" for line in said), encoding="utf-8")
    if target.exists() and target.stat().st_mtime >= now:
        # From the future (another clock, `touch -d`). Its marker must be newer, and cannot come from there too:
        # Snakemake removes a new record that is older than what it was made from.
        os.utime(target, (now - 1, now - 1))
    os.utime(full, (now, now))
    return str(marker)


def _stamp(bench: Bench, name: str) -> Path:
    return Path(STATE_FOLDER, "rendered", bench.machine, f"{name}.json")
