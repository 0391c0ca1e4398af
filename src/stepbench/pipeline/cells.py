"""A cell is one point of an experiment's grid; its name is the stem of the one file that holds its result.

A cell is a frozen dataclass whose fields are the experiment's axes. `name` and `parse` turn it into text and back, and
both are strict: there is exactly one text for each cell, so that no result can be measured twice under two names.

    >>> @dataclass(frozen=True)
    ... class Warmup:
    ...     size: str
    ...     warmup: int
    >>> name(Warmup("nano", 5))
    'size~nano,warmup~5'

`~` is the separator of Snakemake's Paramspace; a `=` after `--config` on a command line would be taken for a setting.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from dataclasses import dataclass
from typing import Any

MAX_NAME_CHARACTERS = 240  # the file systems' 255 bytes less ".json" and a temporary file's prefix

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_INTEGER = r"0|[1-9][0-9]*"
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class Axis:
    """One axis: its name, the type of its values, and what a value may be."""

    name: str
    type: type
    choices: tuple[str, ...] | None
    optional: bool

    @functools.cached_property
    def pattern(self) -> str:
        """The regular expression of the axis' canonical texts, for Snakemake's `wildcard_constraints`."""
        if self.choices is not None:
            core = "|".join(re.escape(choice) for choice in self.choices)
        else:
            core = {int: _INTEGER, bool: "true|false", str: _WORD}[self.type]
        return f"{core}|none" if self.optional else core

    @property
    def valid(self) -> str:
        """What a value may be, in words."""
        if self.choices is not None:
            words = "one of " + ", ".join(self.choices)
        else:
            words = {
                int: "a whole number from 0 without leading zeros",
                bool: "true or false",
                str: "a word of letters, digits, '.', '_' and '-'",
            }[self.type]
        return f"{words} or none" if self.optional else words

    def check(self, value: Any) -> Any:
        """Return `value` if it is one of this axis' values.

        Raises:
            ValueError: it is not.
        """
        if value is None and self.optional:
            return value
        # The word "none" would share its file with no value at all.
        if (
            type(value) is self.type
            and re.fullmatch(self.pattern, _text(value))
            and not (self.optional and value == "none")
        ):
            return value
        raise ValueError(f"`{self.name}` must be {self.valid}, got {value!r}")

    def parse(self, text: str) -> Any:
        """Return the value that `text` is the canonical text of.

        Raises:
            ValueError: `text` is not canonical.
        """
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"`{self.name}` must be {self.valid}, got {text!r}")
        if text == "none" and self.optional:
            return None
        if self.type is bool:
            return _BOOLEANS[text]
        return self.type(text)


@functools.cache
def axes(cell_type: Any) -> tuple[Axis, ...]:
    """Return the axes of a cell's dataclass, in the order of its fields.

    A field is `str`, `int`, `bool`, a `Literal` of words, or one of these `| None`.

    Raises:
        TypeError: a field has another type.
    """
    hints = typing.get_type_hints(cell_type)
    return tuple(_axis(field.name, hints[field.name]) for field in dataclasses.fields(cell_type))


@functools.lru_cache(maxsize=100_000)  # a large grid's names are asked for several times while the Snakefile is read
def name(cell: Any) -> str:
    """Return the canonical text of `cell`, such as `size~nano,warmup~5,replicate~0`.

    Raises:
        ValueError: a field holds what its axis does not allow, or the text is too long for a file name.
    """
    text = ",".join(f"{axis.name}~{_text(axis.check(getattr(cell, axis.name)))}" for axis in axes(cell.__class__))
    if len(text) > MAX_NAME_CHARACTERS:
        raise ValueError(f"a cell's name must have at most {MAX_NAME_CHARACTERS} characters, got {len(text)}")
    return text


def parse(cell_type: type, text: str) -> Any:
    """Return the cell whose `name` is `text`.

    Raises:
        ValueError: a field is missing, unknown, repeated, out of order, mistyped or not in its canonical form.
    """
    if len(text) > MAX_NAME_CHARACTERS:
        raise ValueError(f"a cell's name must have at most {MAX_NAME_CHARACTERS} characters, got {len(text)}")
    expected = [axis.name for axis in axes(cell_type)]
    parts = [part.partition("~") for part in text.split(",")]
    found = [key for key, _, _ in parts]
    if found != expected:
        raise ValueError(f"a cell must name the axes {', '.join(expected)} in this order, got {text!r}")
    return cell_type(
        **{axis.name: axis.parse(value) for axis, (_, _, value) in zip(axes(cell_type), parts, strict=True)}
    )


def pattern(cell_type: type) -> str:
    """Return the cell's name with a wildcard for each axis, as a measuring rule writes it out."""
    return ",".join(f"{axis.name}~{{{axis.name}}}" for axis in axes(cell_type))


def as_dict(cell: Any) -> dict[str, Any]:
    """Return the cell's axes and values."""
    return {axis.name: getattr(cell, axis.name) for axis in axes(cell.__class__)}


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _axis(name: str, hint: Any) -> Axis:
    optional = False
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        if len(members) != 1:
            raise TypeError(f"axis `{name}` must have one type, possibly `| None`, got {hint}")
        hint, optional = members[0], True
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        if not all(isinstance(choice, str) for choice in choices) or (optional and "none" in choices):
            raise TypeError(f"axis `{name}` must have words as choices, and not none beside `| None`, got {choices}")
        return Axis(name, str, choices, optional)
    if hint not in (str, int, bool):
        raise TypeError(f"axis `{name}` must be str, int, bool or a Literal of words, got {hint}")
    return Axis(name, hint, None, optional)
