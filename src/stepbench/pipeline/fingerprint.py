"""A fingerprint says what a number depends on; a record whose fingerprint differs from today's is stale.

It has four parts, kept as plain values so that a difference can be named:

- `source`: a hash for every stepbench module that reaches the number (`stepbench.pipeline.reach`).
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
        key: the value's place in that part, with dots between keys.
        before: the value of the older one; None where it has none.
        after: the value of the newer one; None where it has none.
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
    """Return each value in which the fingerprint `old` differs from `new`; none if they are equal."""
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

    A large file is read once for each size and time it has had; the answer is kept in the folder `memo`.
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
    """Return 16 hexadecimal digits that stand for `value`."""
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()[:16]


def keep(path: Path, text: str) -> None:
    """Write a file of a memo, whole or not at all; another process may write the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(f".{os.getpid()}")
    whole.write_text(text, encoding="utf-8")
    whole.replace(path)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        # An empty mapping stands for itself, so that its coming and going is a difference.
        if isinstance(inner, Mapping) and inner:
            flat.update(_flat(inner, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat
