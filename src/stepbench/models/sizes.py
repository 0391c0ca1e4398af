"""The size of a decoder, and which sizes are valid.

The sizes themselves are configuration (`sizes:` in config.yaml), so that a user adds one with one line. This module
imports only the standard library, because the Snakefile imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, Self, cast


@dataclass(frozen=True)
class Problem:
    """One mistake in a shape.

    Attributes:
        path: The field's keys in config.yaml, or only the field.
        message: The requirement and the value found.
    """

    path: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return f"`{'.'.join(self.path)}` {self.message}"


class ShapeError(ValueError):
    """The shape is invalid; `problems` lists every mistake."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Shape:
    """What the shapes of models have in common.

    Attributes:
        key: The section of config.yaml that holds them.
    """

    key: ClassVar[str]
    d_model: int
    heads: int

    @property
    def head_dim(self) -> int:
        """Return the width of one attention head, `d_model / heads`."""
        return self.d_model // self.heads

    @classmethod
    def from_config(cls, name: str, section: object) -> Self:
        """Return the shape that `<key>.<name>` of config.yaml describes.

        Args:
            name: The shape's name, for error messages.
            section: Its value from YAML; must be a mapping of the fields.

        Raises:
            ShapeError: The shape is invalid.
        """
        if problems := size_problems(name, section, cls):
            raise ShapeError(problems)
        try:
            return cls(**cast(Mapping[str, Any], section))
        except ShapeError as error:
            found = [Problem((cls.key, name, *each.path), each.message) for each in error.problems]
        raise ShapeError(found)


@dataclass(frozen=True)
class ModelSize(Shape):
    """The four numbers that define a decoder's shape, and its vocabulary where it has one of its own.

    Attributes:
        d_model: Width of the residual stream.
        d_ff: Width inside the feed-forward block.
        layers: Number of blocks.
        heads: Number of attention heads; divides `d_model` into an even `head_dim`.
        vocabulary: Number of token ids; None is that of config.yaml.

    Raises:
        ShapeError: The shape is invalid.
    """

    key = "sizes"
    d_model: int
    d_ff: int
    layers: int
    heads: int
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        if problems := value_problems({key: value for key, value in asdict(self).items() if value is not None}):
            raise ShapeError(problems)


def size_problems(name: str, section: object, cls: type[Shape] = ModelSize) -> list[Problem]:
    """Return every mistake in a shape of config.yaml; an empty list means that it is valid.

    Args:
        name: The size's name, for error messages.
        section: Its value from YAML.
        cls: A dataclass of positive integers, including `d_model` and `heads`; what has a default may be left out.
    """
    known = fields(cls)  # type: ignore[arg-type] # of a dataclass that inherits from it
    valid = [field.name for field in known]
    at = (cls.key, name)
    if not isinstance(section, Mapping):
        return [Problem(at, f"must be a mapping of {', '.join(valid)}, got {section!r}")]
    problems = [
        Problem(at, f"must hold only the fields {', '.join(valid)}, got {each!r}")
        for each in section
        if each not in valid
    ]
    needed = [field.name for field in known if field.default is MISSING]
    problems += [Problem((*at, each), f"must be given, got no {each}") for each in needed if each not in section]
    return problems + value_problems({each: section[each] for each in valid if each in section}, at=at)


def value_problems(values: Mapping[str, object], *, at: tuple[str, ...] = ()) -> list[Problem]:
    """Return every mistake in the values of fields; `at` is the path of their section."""
    # bool is an int in Python, and YAML reads `yes` as True: `layers: yes` must not become one layer.
    whole = {key: value for key, value in values.items() if type(value) is int and value > 0}
    problems = [
        Problem((*at, key), f"must be a positive integer, got {value!r}")
        for key, value in values.items()
        if key not in whole
    ]
    if "d_model" not in whole or "heads" not in whole:
        return problems
    d_model, heads = whole["d_model"], whole["heads"]
    if d_model % heads:
        problems.append(Problem((*at, "heads"), f"must divide d_model ({d_model}), got {heads}"))
    elif d_model // heads % 2:
        problems.append(
            Problem(
                (*at, "heads"),
                "must give an even head_dim, because rotary positions rotate pairs, "
                f"got d_model {d_model} / heads {heads} = {d_model // heads}",
            )
        )
    return problems
