"""Bundles: pack all records of one machine into one file, and merge such a file on another machine."""

from __future__ import annotations

import datetime
import gzip
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells, history, planning, records
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.records import Record
from stepbench.process import storage

VERSION = 1
# Five thousand cells with details unpack to a tenth of this; as Python objects they take up to twenty times the text.
MAX_PACKED_BYTES, MAX_BYTES = 64 * 2**20, 256 * 2**20
MAX_SHOWN = 200
MACHINE = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")  # as in config.schema.yaml
NOT_MACHINES = ("data",)  # results/data holds tokens
KEYED = "`records` must be keyed by <experiment>/<cell>.json"


def pack(bench: Bench, folder: Path, *, with_history: bool = False, more: Mapping[str, Any] | None = None) -> Path:
    """Write every readable record of this machine into `folder`/bench_<machine>_<date>.json.gz and return its path.

    The file is gzip-compressed JSON: `version`, `machine`, `date`, `records` (path below results/<machine>/ → content
    of the record's file), with the history `history` (the same path → a list of such contents), and the keys of `more`.
    An invalid record is not packed; `refused` lists it with the reason.
    """
    packed: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for path in planning.recorded(bench):
        name = Path(*path.parts[2:]).as_posix()
        try:
            records.read(bench.root / path)
        except records.RecordError as error:
            refused[name] = str(error)
        else:
            packed[name] = json.loads((bench.root / path).read_text(encoding="utf-8"))
    if with_history:
        more = {**(more or {}), "history": _packed_history(bench, refused)}
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    content = {
        "version": VERSION,
        "machine": bench.machine,
        "date": date,
        "records": packed,
        "refused": refused,
        **(more or {}),
    }
    file = folder / f"bench_{bench.machine}_{date}.json.gz"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))
    return file


def _packed_history(bench: Bench, refused: dict[str, str]) -> dict[str, Any]:
    packed: dict[str, Any] = {}
    for path in history.recorded(bench.root / "results" / bench.machine):
        found = history.read(path)
        refused |= {f"{history.FOLDER}/{path.parent.name}/{path.name}": told for told in found.refused}
        contents = [json.loads(entry.path.read_text(encoding="utf-8")) for entry in found.entries]
        if contents:
            packed[f"{path.parent.name}/{path.name}"] = contents
    return packed


# -- merging ----------------------------------------------------------------------------------------------------------


class BundleError(ValueError):
    """A file is not a valid bundle; the message names the file and the mistake."""


@dataclass(frozen=True)
class Merged:
    """The result of merging a bundle; all paths are relative to the root.

    Attributes:
        machine: the machine of the records.
        written: records that were written.
        same: records that already existed with the same content.
        conflicts: records that already existed with other content; with `replace` they go to the history.
        earlier: how many records of the bundle's history are new here.
    """

    machine: str
    written: tuple[Path, ...]
    same: tuple[Path, ...]
    conflicts: tuple[Path, ...]
    earlier: int = 0


def merge(bench: Bench, file: Path, *, replace: bool = False) -> Merged:
    """Write the records of a bundle to results/<its machine>/.

    Nothing in the bundle is executed. All of it is checked before anything is written, and only canonical paths of
    cells below results/ are written.

    Args:
        bench: the bench whose root contains results/.
        file: the bundle.
        replace: whether to replace records with other content, which go to the history.

    Raises:
        BundleError: the file is not a bundle, or one of its records is invalid; nothing was written.
        OSError: the file cannot be read, or the folder is not writable.
    """
    content = read(file)
    machine = content["machine"]
    found: dict[Path, dict[str, Any]] = {}
    for name, each in content["records"].items():
        path, cell = _path(bench, file, machine, name)
        _believed(file, name, cell, each)
        found[path] = each
    earlier: dict[Path, list[tuple[Record, bytes]]] = {}
    for name, contents in content.get(history.FOLDER, {}).items():
        path, cell = _path(bench, file, machine, name)
        if not isinstance(contents, list):
            raise BundleError(f"{file}: `history` must map each cell to a list, got {type(contents).__name__}")
        earlier[path] = [(_believed(file, name, cell, each), _text(each).encode()) for each in contents]
    existing = {path: _existing(bench.root / path) for path in found}
    same = tuple(path for path, each in found.items() if existing[path] == each)
    conflicts = tuple(path for path in found if existing[path] is not None and path not in same)
    written = tuple(path for path in found if path not in same and (replace or path not in conflicts))
    for path in written:
        history.keep(bench.root / path)
        storage.write_atomically(bench.root / path, _text(found[path]))
    new = sum(history.merge(bench.root / path, each) for path, each in earlier.items())
    return Merged(machine, written, same, conflicts, new)


def _believed(file: Path, name: str, cell: Cell, content: Any) -> Record:
    """Return the record that a bundle has for a cell, once it is verified."""
    try:
        record = records.believe(content, Path(name))
    except records.RecordError as error:
        raise BundleError(f"{file}: {error}") from None
    if (record.experiment, record.cell) != (cell.experiment, cell.values):
        raise BundleError(f"{file}: {name}: `experiment` and `cell` must be those that the path names")
    return record


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def read(file: Path) -> dict[str, Any]:
    """Return the content of a bundle after checking its size, version, machine and structure, but not its records.

    Raises:
        BundleError: it is none.
        OSError: it cannot be read.
    """
    if file.stat().st_size > MAX_PACKED_BYTES:
        raise BundleError(f"{file}: a bundle must have at most {MAX_PACKED_BYTES} bytes, got {file.stat().st_size}")
    try:
        with gzip.open(file) as stream:
            text = stream.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise BundleError(f"{file}: a bundle must unpack to at most {MAX_BYTES} bytes, got more")
        content = records.strict_json(text)
    except BundleError:
        raise
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{file}: a bundle must be a JSON document compressed with gzip, got {reason}") from None
    if not isinstance(content, dict):
        raise BundleError(f"{file}: a bundle must be a JSON object, got {type(content).__name__}")
    if content.get("version") != VERSION:
        raise BundleError(f"{file}: `version` must be {VERSION}, got {_shown(content.get('version'))}")
    machine = content.get("machine")
    if not isinstance(machine, str) or not MACHINE.fullmatch(machine) or machine in NOT_MACHINES:
        raise BundleError(f"{file}: `machine` must be a name such as nvidia-h200-1x, got {_shown(machine)}")
    if not isinstance(content.get("records"), dict):
        raise BundleError(f"{file}: `records` must be an object, got {type(content.get('records')).__name__}")
    if not isinstance(content.get(history.FOLDER, {}), dict):
        raise BundleError(f"{file}: `history` must be an object, got {type(content[history.FOLDER]).__name__}")
    return content


def _path(bench: Bench, file: Path, machine: str, name: str) -> tuple[Path, Cell]:
    """Return the path of a bundle's record, relative to the root, and its cell."""
    folder, _, cell_name = name.removesuffix(".json").partition("/")
    try:
        experiment = experiments.load(folder)
        cell: Cell = cells.parse(experiment.cell, cell_name)
    except ValueError as error:
        raise BundleError(f"{file}: {KEYED}, got {_shown(name)}: {_cut(str(error))}") from None
    if name != f"{folder}/{cell.name}.json":
        raise BundleError(f"{file}: {KEYED}, got {_shown(name)}")
    path = Path("results", machine, name)
    home = (bench.root / "results").resolve()
    if not (bench.root / path).resolve().is_relative_to(home):
        raise BundleError(f"{file}: a record must be written below {home}, got {path}")
    return path, cell


def _existing(path: Path) -> Any:
    """Return a file's JSON, None if there is no file, and `unreadable`, which equals no record, if it is invalid."""
    try:
        return records.strict_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return "unreadable"


def _shown(found: Any) -> str:
    """Return a value from a file, shortened and on one line."""
    return _cut(repr(found))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
