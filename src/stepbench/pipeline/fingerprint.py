"""A fingerprint states what a number depends on; a record whose fingerprint differs from the current one is stale.

It has four parts, stored as plain values so that a difference can be named:

- `source`: a hash of every stepbench module that the number depends on (`stepbench.pipeline.reach`).
- `definition`: the settings of config.yaml that the cell uses.
- `software`: versions of torch, triton, CUDA, the driver and Python.
- `machine`: the device, its count, and the threads used for measuring.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = "source"


@dataclass(frozen=True)
class Difference:
    """One value in which two fingerprints differ.

    Attributes:
        part: the part of the fingerprint, such as `source` or `definition`.
        key: the keys of the value in that part, joined by dots.
        before: the value in the older one, None if it has none.
        after: the value in the newer one, None if it has none.
        added: whether the older one lacks the key.
        removed: whether the newer one lacks the key.
    """

    part: str
    key: str = ""
    before: Any = None
    after: Any = None
    added: bool = False
    removed: bool = False

    def __str__(self) -> str:
        if not self.part:
            return "the record has no fingerprint"
        if self.part != SOURCE:
            return f"{self.part}: {self.key} was {self.before!r}, is {self.after!r}"
        return f"source: {self.key} {'is new' if self.added else 'is gone' if self.removed else 'changed'}"


def difference(old: Any, new: Mapping[str, Any]) -> list[Difference]:
    """Return the differences between the fingerprints `old` and `new`; empty if they are equal."""
    if not isinstance(old, Mapping):
        return [Difference("")]
    found = []
    for part in sorted(old.keys() | new.keys()):
        before, after = _flat(old.get(part, {})), _flat(new.get(part, {}))
        for key in sorted(before.keys() | after.keys()):
            added, removed = key not in before, key not in after
            if added or removed or before[key] != after[key]:
                found.append(Difference(part, key, before.get(key), after.get(key), added, removed))
    return found


def content(path: Path, memo: Path) -> str:
    """Return a digest of a file's bytes, or `missing`.

    The digest is cached in the folder `memo` by the file's path, size and time, so that a large file is read once.
    """
    if not path.exists():
        return "missing"
    stat = path.stat()
    kept = memo / f"{digest(f'{path.resolve()} {stat.st_size} {stat.st_mtime_ns}')}.txt"
    if kept.exists():
        return kept.read_text(encoding="ascii")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    keep(kept, found)
    return found


def digest(value: str | bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of `value`."""
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()[:16]


def keep(path: Path, text: str) -> None:
    """Write a cache file atomically; another process may write the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(f".{os.getpid()}")
    whole.write_text(text, encoding="utf-8")
    whole.replace(path)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        # An empty mapping is a value itself, so that adding or removing one is a difference.
        if isinstance(inner, Mapping) and inner:
            flat.update(_flat(inner, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat
