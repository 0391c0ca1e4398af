"""A record is the JSON file that holds the result of one cell, or the reason why there is none.

Raw samples are kept, in run order and in seconds; readers compute statistics. A file appears whole or not at all.
Reading is strict, so that no table is made of a record that was truncated, modified or moved.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepbench.process import failures, storage

# 1: first version.
VERSION = 1

STATUSES = ("ok", "oom", "timeout", "unsupported", "error")
# These may go away by themselves. `oom` and `unsupported` stand until something changes, and a `timeout` whose limit is
# in its record stands until there is more time.
RETRIED = ("timeout", "error")
MAX_BYTES = 64 * 2**20


class RecordError(ValueError):
    """A file is not a valid record.

    Attributes:
        path: the file.
        problem: what is wrong with it, without the file's name.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


@dataclass(frozen=True)
class Record:
    """The content of one cell's file.

    Attributes:
        experiment: the experiment's name.
        cell: axis -> value.
        status: one of `STATUSES`.
        reason: one sentence if the status is not `ok`.
        kind: which of `stepbench.process.failures.KINDS` the reason is; None if the status is `ok`, and in records from
            before there were kinds.
        traceback: for `error`, where the exception came from.
        samples: name -> raw values in run order, or one such list for each rank; a name that ends in `_s` is seconds.
        scalars: name with a unit suffix -> number, text, truth value or null.
        details: what is neither: an experiment's own tables, timelines and the like.
        protocol: how it was measured: warmup, repeats, seed, clock, threads, data.
        environment: where: the machine and its software; null where unknown.
        fingerprint: what decides staleness, in parts (`stepbench.pipeline.fingerprint`).
        started: ISO 8601 in UTC.
        duration_s: seconds spent inside the experiment's `measure`.
    """

    experiment: str
    cell: dict[str, Any]
    status: str
    fingerprint: dict[str, Any]
    started: str
    duration_s: float
    reason: str | None = None
    kind: str | None = None
    traceback: str | None = None
    samples: dict[str, Any] = field(default_factory=dict)
    scalars: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @property
    def ok(self) -> bool:
        """Whether something was measured."""
        return self.status == "ok"


def write(path: Path, record: Record) -> None:
    """Write `record` to `path` so that a reader sees the old file, the new one, or none, but never a part.

    Raises:
        RecordError: the record is not valid.
        OSError: the file system refuses.
    """
    storage.write_atomically(path, text(path, record))


def text(path: Path, record: Record) -> str:
    """Return what `write` writes to `path`.

    Raises:
        RecordError: the record is not valid.
    """
    content = dataclasses.asdict(record)
    _validate(content, path)
    try:
        content["checksum"] = checksum(content)
    except (ValueError, TypeError) as error:
        raise RecordError(path, f"not representable in JSON: {_one_line(error)}") from None
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def read(path: Path) -> Record:
    """Return the record at `path`.

    Raises:
        FileNotFoundError: there is none.
        RecordError: it is truncated, modified, incomplete, invalid or of another version.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecordError(path, f"a record must have at most {MAX_BYTES} bytes, got {path.stat().st_size}")
        found = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordError(path, f"cannot be read: {error.strerror}") from None
    try:
        content = strict_json(found)
    except (ValueError, RecursionError) as error:
        raise RecordError(path, f"not valid JSON: {_one_line(error)}") from None
    return believe(content, path)


def strict_json(text: bytes) -> Any:
    """Return the content of a JSON document; duplicate keys, NaN and numbers that no float can hold are refused.

    Raises:
        ValueError: it is not such a document.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)


def believe(content: Any, path: Path) -> Record:
    """Return the record that a file holds, once its checksum and fields are verified.

    Args:
        content: the file's JSON, the checksum included.
        path: the file that messages name.

    Raises:
        RecordError: it is modified, incomplete, invalid or of another version.
    """
    try:
        content = dict(content) if isinstance(content, dict) else content
        found = content.pop("checksum", None) if isinstance(content, dict) else None
        expected = checksum(content)
    except (ValueError, TypeError, RecursionError) as error:
        raise RecordError(path, f"not valid JSON: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise RecordError(path, f"a record must be a JSON object, got {type(content).__name__}")
    _validate(content, path)
    if found != expected:
        raise RecordError(path, "checksum mismatch: the record was modified after it was written")
    return Record(**content)


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a record's content, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# Each key: the types of its value, and how a message calls them.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "experiment": ((str,), "a string"),
    "cell": ((dict,), "an object"),
    "status": ((str,), "a string"),
    "fingerprint": ((dict,), "an object"),
    "started": ((str,), "a string"),
    "duration_s": ((int, float), "a number"),
    "reason": ((str, type(None)), "a string or null"),
    "kind": ((str, type(None)), "a string or null"),
    "traceback": ((str, type(None)), "a string or null"),
    "samples": ((dict,), "an object"),
    "scalars": ((dict,), "an object"),
    "details": ((dict,), "an object"),
    "protocol": ((dict,), "an object"),
    "environment": ((dict,), "an object"),
    "version": ((int,), "a whole number"),
}
_ADDED_LATER = {"kind"}  # a record that was written before says the same without it


def _validate(content: Mapping[str, Any], path: Path) -> None:
    if content.get("version") != VERSION:
        raise RecordError(path, f"`version` must be {VERSION}, got {content.get('version')!r}")
    if missing := sorted(_TYPES.keys() - content.keys() - _ADDED_LATER):
        raise RecordError(path, f"missing key `{missing[0]}`")
    if unknown := sorted(content.keys() - _TYPES.keys()):
        raise RecordError(path, f"unknown key `{_shown(unknown[0])}`; valid are {', '.join(_TYPES)}")
    for key, value in content.items():
        types, called = _TYPES[key]
        if not isinstance(value, types) or isinstance(value, bool):
            raise RecordError(path, f"`{key}` must be {called}, got {type(value).__name__}")
    if content["status"] not in STATUSES:
        raise RecordError(path, f"`status` must be one of {', '.join(STATUSES)}, got {content['status']!r}")
    if content["status"] != "ok" and not content["reason"]:
        raise RecordError(path, f"`reason` must not be empty where `status` is {content['status']}")
    kind = content.get("kind")
    if kind is not None and (kind not in failures.KINDS or content["status"] == "ok"):
        valid = "null where `status` is ok" if content["status"] == "ok" else f"one of {', '.join(failures.KINDS)}"
        raise RecordError(path, f"`kind` must be {valid}, got {kind!r}")
    _check_seconds("duration_s", content["duration_s"], path)
    for name, values in content["samples"].items():
        _check_samples(name, values, path)
    for name, value in content["scalars"].items():
        _check_scalar(name, value, path)


def _check_samples(name: str, values: Any, path: Path) -> None:
    where = f"samples.{_shown(name)}"
    if not isinstance(values, list):
        raise RecordError(path, f"`{where}` must be a list of numbers, got {type(values).__name__}")
    ranks = values if all(isinstance(value, list) for value in values) else [values]
    if len(lengths := {len(rank) for rank in ranks}) > 1:
        raise RecordError(path, f"`{where}` must hold as many numbers of each rank, got {sorted(lengths)}")
    for rank in ranks:
        for value in rank:
            if not _is_number(value):
                raise RecordError(path, f"`{where}` must hold finite numbers, got {value!r}")
            if name.endswith("_s"):
                _check_seconds(where, value, path)


def _check_scalar(name: str, value: Any, path: Path) -> None:
    where = f"scalars.{_shown(name)}"
    if not isinstance(value, str | int | float | bool | type(None)):
        raise RecordError(
            path, f"`{where}` must be a number, a string, a truth value or null, got {type(value).__name__}"
        )
    if isinstance(value, int | float) and not isinstance(value, bool) and not _is_number(value):
        raise RecordError(path, f"`{where}` must be finite, got {value!r}")
    if name.endswith(("_s", "_bytes")) and isinstance(value, int | float):
        _check_seconds(where, value, path)


def _check_seconds(where: str, value: float, path: Path) -> None:
    if not _is_number(value) or value < 0:
        raise RecordError(path, f"`{where}` must be finite and not negative, got {value!r}")


def _is_number(value: Any) -> bool:
    """Return whether `value` is a number that a float can hold, which JSON does not promise."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _shown(name: str) -> str:
    """Return a name from a file so that it stays one line of a message that any file can hold."""
    return name if name.isprintable() else repr(name)[1:-1]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key `{next(key for key in keys if keys.count(key) > 1)}`")
    return content


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number that JSON allows")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is larger than a float can hold")
    return value


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
