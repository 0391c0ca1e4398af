"""What is wrong with a configuration, as values; a sentence is made of one by whoever shows it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Each kind of mistake, and what it means.
KINDS = {
    "unreadable": "the file cannot be read, is not YAML, or is no mapping",
    "notation": "YAML reads the text as something else than it looks like",
    "duplicate": "a key stands twice in a mapping, and YAML keeps the last one",
    "missing": "a key that must be given is not there",
    "unknown": "a key, an axis, an experiment or a size that does not exist",
    "value": "the value is not one of those that are valid",
    "machine": "this machine, or the data on it, cannot do what is asked for",
}
# Of these the sentence is about the text, and names what it is about by itself.
_OF_THE_TEXT = ("unreadable", "notation", "duplicate")

Key = str | int


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong with a configuration.

    Attributes:
        kind: one of `KINDS`.
        message: what must hold and what was found, as it reads after the key's path.
        path: the keys that lead to it, and positions in lists; empty where it is about no key.
        file: where it stands, None where it came from the command line or nobody knows.
        line: the line in that file, from 1.
    """

    kind: str
    message: str
    path: tuple[Key, ...] = ()
    file: Path | None = None
    line: int | None = None

    def __str__(self) -> str:
        place = "".join(f"{part}:" for part in (self.file, self.line) if part is not None)
        name = "" if self.kind in _OF_THE_TEXT or not self.path else f"`{dotted(self.path)}` "
        return f"{place}{' ' if place else ''}{name}{self.message}"


class ConfigError(ValueError):
    """The configuration cannot be used; `mistakes` holds every reason, and the text has a line for each.

    Args:
        mistakes: what is wrong; a text is a mistake of the kind `machine`, which is about no key.
    """

    def __init__(self, *mistakes: Mistake | str) -> None:
        self.mistakes = tuple(each if isinstance(each, Mistake) else Mistake("machine", each) for each in mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))


def dotted(path: Iterable[Key]) -> str:
    """Return a path of keys as people write it, such as `experiments.warmup.cpu[0].size`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def hint(found: str, valid: Iterable[str]) -> str:
    """Return the end of a sentence about a name that is unknown: the closest valid one, and all of them."""
    valid = list(valid)
    close = difflib.get_close_matches(found, valid, n=1)
    return (f" (did you mean {close[0]}?)" if close else "") + f"; valid are {', '.join(valid)}"
