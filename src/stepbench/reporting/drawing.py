"""A figure that knows what its points say: the page shows it where one points at them, and leads to their rows.

A point with a warning is hollow, and nothing else is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from stepbench.reporting import marks as warnings
from stepbench.reporting.columns import where
from stepbench.reporting.marks import Mark

HOLLOW = "white"
_COORDINATES = re.compile(r'^(?:<path id="[^"]*" d=")?[MLCQ] [^"\n]*$| [xy]="[^"]*"', re.MULTILINE)
_DECIMALS = re.compile(r"(?<=\.\d\d)\d+")


class Measured(Protocol):
    """What was measured at a point of a grid, such as `stepbench.reporting.points.Group`."""

    @property
    def point(self) -> dict[str, Any]:
        """Axis -> value."""

    @property
    def paths(self) -> list[str]:
        """The files of its records, relative to the root."""


@dataclass(frozen=True)
class Told:
    """What a point of a figure says.

    Attributes:
        id: of its element in the SVG.
        point: axis -> value.
        what: the quantity, in words; empty where the figure has only one.
        value: with its unit and interval.
        marks: its warnings.
        records: the paths of the records behind it.
    """

    id: str
    point: dict[str, Any]
    what: str
    value: str
    marks: tuple[Mark, ...]
    records: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """What the JSON beside a figure holds.

    Attributes:
        description: what it holds constant and how to read it.
        empty: why there is nothing to draw; empty where there is.
        points: id of an element of the SVG -> its `text` and the paths of its `records`.
    """

    description: str
    empty: str
    points: Mapping[str, Mapping[str, Any]]


class Drawing(Figure):
    """A figure with what its points say, and the kinds of warnings that made some of them hollow."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.told: list[Told] = []
        self.hollow: dict[str, None] = {}
        self.sentence = ""  # why there is nothing to draw

    def said(self) -> dict[str, dict[str, Any]]:
        """Return for the id of each point its text and its records."""
        return {
            told.id: {"text": _text(told, self.told), "records": list(told.records)} for told in self.told if told.point
        }


def tell(artist: Artist, measured: Measured, value: str, what: str = "", marks: Iterable[Mark] = ()) -> None:
    """Have a point, a bar or a line say what it shows.

    Args:
        artist: what was drawn, one element of the SVG.
        measured: the point of the grid.
        value: with its unit and interval.
        what: the quantity, in words.
        marks: the warnings of the value.
    """
    figure = artist.figure
    if isinstance(figure, Drawing):
        name = f"point-{len(figure.told)}"
        artist.set_gid(name)
        figure.told.append(Told(name, measured.point, what, value, tuple(marks), tuple(measured.paths)))


def face(artist_of: Any, color: str, marks: Sequence[Mark]) -> str:
    """Return the colour inside a marker or a bar: hollow with a warning, which the legend then explains.

    Args:
        artist_of: the axes.
        color: without a warning.
        marks: the warnings.
    """
    figure = artist_of.figure
    if marks and isinstance(figure, Drawing):
        figure.hollow |= dict.fromkeys(mark.kind for mark in marks)
    return HOLLOW if marks else color


def rounded(svg: str) -> str:
    """Return an SVG with the coordinates of points in hundredths of a point, which nobody sees; half as large."""
    return _COORDINATES.sub(lambda found: _DECIMALS.sub("", found[0]), svg)


def _text(told: Told, shown: Sequence[Told]) -> str:
    alike = [each for each in shown if each.point.keys() == told.point.keys()]
    parts: Mapping[str, None] = dict.fromkeys(filter(None, (where(told, alike), told.what)))
    found = f"{', '.join(parts)}: {told.value}" if parts else told.value
    return f"{found}; {warnings.text(told.marks)}" if told.marks else found
