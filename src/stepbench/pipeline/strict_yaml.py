"""YAML, read strictly.

YAML reads `1e-3` as text, `no` as false, `010` as eight, and keeps the last of two equal keys, all without a word. Each
of these is a mistake here.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stepbench.pipeline.mistakes import ConfigError, Key, Mistake


@dataclass(frozen=True)
class Parsed:
    """What one file holds.

    Attributes:
        content: as YAML has it.
        mistakes: what YAML took for something else without a word.
        lines: the line of each key and of each element of a list, by the path of keys that leads to it.
    """

    content: Any
    mistakes: tuple[Mistake, ...]
    lines: Mapping[tuple[Key, ...], int]


def parse(path: Path) -> Parsed:
    """Return what a file holds.

    Raises:
        ConfigError: it cannot be read, or is not YAML.
    """
    try:
        content, mistakes, lines = _parsed(path.read_bytes())
    except OSError as error:
        told = f"a configuration file must be readable, got {error.strerror}"
        if isinstance(error, FileNotFoundError) and path.name == "config.yaml":
            told += "; run this in a clone of stepbench, or name its folder with --root"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Not YAML's own: bytes that are not UTF-8, a date that does not exist, an alias inside of what it stands for.
        told = f"must be YAML, got {' '.join(str(error).split())}"
    else:
        return Parsed(copy.deepcopy(content), tuple(dataclasses.replace(each, file=path) for each in mistakes), lines)
    raise ConfigError(Mistake("unreadable", told, file=path))


@functools.lru_cache(maxsize=4)  # opening a bench reads and then checks, and config.yaml takes 0.15 s to parse
def _parsed(text: bytes) -> tuple[Any, tuple[Mistake, ...], dict[tuple[Key, ...], int]]:
    loader = yaml.SafeLoader(text.decode())
    root = loader.get_single_node()
    mistakes, lines = tuple(_mistakes(root)), dict(_lines(root))  # before `<<` is resolved, in place
    return None if root is None else loader.construct_document(root), mistakes, lines


def _mistakes(node: yaml.Node | None, path: tuple[Key, ...] = ()) -> Iterator[Mistake]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                yield Mistake("duplicate", f"duplicate key `{name}`", (*path, name), line=key.start_mark.line + 1)
            seen.add(name)
            yield from _mistakes(value, (*path, name))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _mistakes(value, (*path, index))
    elif isinstance(node, yaml.ScalarNode) and node.style is None and (told := _misread(node)):
        yield Mistake("notation", told, path, line=node.start_mark.line + 1)


def _misread(node: yaml.ScalarNode) -> str | None:
    """Return what is wrong with a plain scalar that YAML reads as something else than it looks like."""
    kind, text = node.tag.rpartition(":")[2], node.value
    if kind == "bool" and text not in ("true", "false"):
        return f"expected `true` or `false`, got `{text}` (quote it to mean the string)"
    if kind == "int" and not re.fullmatch(r"-?(0|[1-9][0-9]*)", text):
        return f"expected a whole number in plain decimal digits, got `{text}`"
    if kind == "float" and not re.fullmatch(r"-?[0-9]+\.[0-9]*([eE][-+][0-9]+)?", text):
        return f"expected a number in decimal digits such as 0.5, got `{text}`"
    if kind == "str" and re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", text):
        return f"expected an exponent written like 1.0e-3, got `{text}`, which YAML reads as a string"
    return None


def _lines(node: yaml.Node | None, path: tuple[Key, ...] = ()) -> Iterator[tuple[tuple[Key, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner: tuple[Key, ...] = (*path, str(key.value))
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _lines(value, (*path, index))
