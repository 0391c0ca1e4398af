"""What a page carries along so that it works when it is mailed: the records behind its rows, and its tables as CSV.

Both are compressed, and a browser unpacks them when they are asked for.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

CSV = "csv"


class Embedded:
    """Collects what a page carries along."""

    def __init__(self, root: Path) -> None:
        """Begin with nothing; records' paths are relative to `root`."""
        self.root = root
        self.tables: dict[str, list[str]] = {}
        self._numbers: dict[str, int] = {}

    def numbers(self, paths: Iterable[str]) -> list[int]:
        """Return the number of each record on this page, in the order in which records were asked for."""
        return [self._numbers.setdefault(path, len(self._numbers)) for path in paths]

    @property
    def paths(self) -> list[str]:
        """The records' paths; a record's number is its place here."""
        return list(self._numbers)

    def packed(self) -> dict[str, str]:
        """Return the name of each part -> its JSON, compressed and in base64.

        Raises:
            FileNotFoundError: a record is missing.
        """
        parts: dict[str, dict[str, str]] = {}
        for path in self._numbers:
            text = (self.root / path).read_text(encoding="utf-8")
            parts.setdefault(PurePosixPath(path).parent.as_posix(), {})[path] = text
        return {**{name: pack(part) for name, part in parts.items()}, CSV: pack(self.tables)}


def pack(content: Mapping[str, Any]) -> str:
    """Return a JSON object compressed and in base64; the same object gives the same text."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8"), mtime=0)).decode("ascii")


def unpack(text: str) -> Any:
    """Return what `pack` has packed."""
    return json.loads(gzip.decompress(base64.b64decode(text)))
