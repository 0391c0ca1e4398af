"""A cell is one point of an experiment's grid; its name is the stem of its record's file name.

A cell is a frozen dataclass whose fields are the experiment's axes. `Cell.name` and `parse` convert it to text and
back, and both are strict: each cell has exactly one text, so that no result is measured twice under two names.

    >>> @dataclass(frozen=True)
    ... class Warmup(Cell):
    ...     size: str
    ...     warmup: int
    >>> Warmup("nano", 5).name
    'size~nano,warmup~5'

`~` is the separator of Snakemake's Paramspace; with `=`, a name after `--config` on a command line would be a setting.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

MAX_NAME_CHARACTERS = 240  # 255 bytes of the file system minus ".json" and a temporary file's prefix

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_POSITIVE = r"[1-9][0-9]*"
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        name: the field's name.
        type: `str`, `int` or `bool`.
        choices: the valid words of a `Literal`; None for any value of the type.
        optional: whether a value may be None.
        from_zero: whether an `int` may be 0; most axes are sizes and counts, of which 0 is nothing to measure.
        section: the section of config.yaml whose keys are valid beside the choices, or None. Whether a word is one of
            them is checked where the configuration is known (`stepbench.pipeline.config.entries`).
    """

    name: str
    type: type
    choices: tuple[str, ...] | None
    optional: bool
    from_zero: bool = False
    section: str | None = None

    @functools.cached_property
    def pattern(self) -> str:
        """The regular expression of the axis' canonical texts, for Snakemake's `wildcard_constraints`."""
        if self.choices is not None and self.section is None:
            core = "|".join(re.escape(choice) for choice in self.choices)
        else:
            core = {int: f"0|{_POSITIVE}" if self.from_zero else _POSITIVE, bool: "true|false", str: _WORD}[self.type]
        return f"{core}|none" if self.optional else core

    @property
    def valid(self) -> str:
        """The valid values, in words."""
        if self.choices is not None:
            words = "one of " + ", ".join(self.choices) + (f" or a name of `{self.section}`" if self.section else "")
        else:
            words = {
                int: f"a whole number from {0 if self.from_zero else 1} without leading zeros",
                bool: "true or false",
                str: "a word of letters, digits, '.', '_' and '-'",
            }[self.type]
        return f"{words} or none" if self.optional else words

    def check(self, value: Any) -> Any:
        """Return `value` if it is valid for this axis.

        Raises:
            ValueError: it is not valid.
        """
        if value is None and self.optional:
            return value
        # The word "none" would have the same file name as the value None.
        if (
            type(value) is self.type
            and re.fullmatch(self.pattern, _text(value))
            and not (self.optional and value == "none")
        ):
            return value
        raise ValueError(f"`{self.name}` must be {self.valid}, got {value!r}")

    def parse(self, text: str) -> Any:
        """Return the value whose canonical text is `text`.

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


@dataclass(frozen=True)
class Cell:
    """The base class of all cells: experiment, name, values and path.

    An experiment's `cell.py` defines its own `Cell`, a frozen dataclass that inherits from this one and whose fields
    are the axes.

    Attributes:
        FROM_ZERO: the axes of whole numbers that may be 0.
    """

    FROM_ZERO: ClassVar[tuple[str, ...]] = ("replicate",)

    @property
    def experiment(self) -> str:
        """The name of the experiment: the folder of the module that defines the class."""
        return type(self).__module__.split(".")[-2]

    @functools.cached_property
    def name(self) -> str:
        """The canonical text, such as `size~nano,warmup~5,replicate~0`.

        Raises:
            ValueError: a field's value is invalid, or the text is too long for a file name.
        """
        text = ",".join(f"{axis.name}~{_text(axis.check(getattr(self, axis.name)))}" for axis in self.axes())
        _check_length(text)
        return text

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        """The axes and their values."""
        return {axis.name: getattr(self, axis.name) for axis in self.axes()}

    @classmethod
    def axes(cls) -> tuple[Axis, ...]:
        """Return the axes, in the order of the fields."""
        return axes(cls)  # type: ignore[arg-type] # mypy confuses the class with an instance

    def path(self, machine: str) -> Path:
        """Return the path of the cell's record on a machine, relative to the root."""
        return Path("results", machine, self.experiment, f"{self.name}.json")

    @property
    def named(self) -> tuple[str, ...]:
        """The modules that the cell's values select, such as that of its attention implementation."""
        return ()

    def modules(self, definition: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the modules that the cell and its definition select: those of `named`, or others."""
        return self.named

    def builds_on(self, grid: Iterable[Any]) -> tuple[Any, ...]:
        """Return the cells of the experiment's grid whose records decide what this one measures; mostly none."""
        return ()

    def learned(self, settings: Mapping[str, Any], below: Mapping[Any, Any]) -> dict[str, Any]:
        """Return what those records add to the cell's definition.

        Under `kernels` stand attention kernels of the user's own by name, each with its `function`.

        Args:
            settings: config.yaml.
            below: the cells of `builds_on` with their records, None where there is none that holds numbers.
        """
        return {}


@functools.cache
def axes(cell_type: Any) -> tuple[Axis, ...]:
    """Return the axes of a cell's dataclass, in the order of its fields.

    A field's type is `str`, `int`, `bool`, a `Literal` of words, or one of these `| None`. A `Literal` that is
    annotated with a section of config.yaml allows the keys of that section too.

    Raises:
        TypeError: a field has another type.
    """
    hints = typing.get_type_hints(cell_type, include_extras=True)
    from_zero = getattr(cell_type, "FROM_ZERO", Cell.FROM_ZERO)
    return tuple(
        dataclasses.replace(_axis(field.name, hints[field.name]), from_zero=field.name in from_zero)
        for field in dataclasses.fields(cell_type)
    )


def parse(cell_type: type, text: str) -> Any:
    """Return the cell whose `name` is `text`.

    Raises:
        ValueError: a field is missing, unknown, repeated, out of order, mistyped or not in its canonical form.
    """
    _check_length(text)
    expected = [axis.name for axis in axes(cell_type)]
    parts = [part.partition("~") for part in text.split(",")]
    found = [key for key, _, _ in parts]
    if found != expected:
        raise ValueError(f"a cell must name the axes {', '.join(expected)} in this order, got {text!r}")
    return cell_type(
        **{axis.name: axis.parse(value) for axis, (_, _, value) in zip(axes(cell_type), parts, strict=True)}
    )


def _check_length(text: str) -> None:
    if len(text) > MAX_NAME_CHARACTERS:
        raise ValueError(f"a cell's name must have at most {MAX_NAME_CHARACTERS} characters, got {len(text)}")


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
    if typing.get_origin(hint) is typing.Annotated:
        (section,) = hint.__metadata__
        return dataclasses.replace(_axis(name, hint.__origin__), optional=optional, section=section)
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        if not all(isinstance(choice, str) for choice in choices) or (optional and "none" in choices):
            raise TypeError(f"axis `{name}` must have words as choices, without none if it may be None, got {choices}")
        return Axis(name, str, choices, optional)
    if hint not in (str, int, bool):
        raise TypeError(f"axis `{name}` must be str, int, bool or a Literal of words, got {hint}")
    return Axis(name, hint, None, optional)
