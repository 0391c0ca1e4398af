"""A figure of the page: the SVG itself, whose points say what they show and lead to the rows of the tables."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from stepbench.reporting.drawing import Kept

Rows = Mapping[frozenset[str], str]
FONT = "DejaVu"  # matplotlib's own; a letter's id is that of its font and its code
_LETTER = re.compile(rf'<path id="({FONT}[^"]*)"[^>]*/>')


def render(svg: str, name: str, kept: Kept, alt: str, rows: Rows, letters: set[str]) -> str:
    """Return the HTML of a figure.

    Args:
        svg: as matplotlib wrote it.
        name: unique on the page; the ids in the SVG get it as a prefix, or those of two figures would be the same.
        kept: what its points say.
        alt: what the figure shows.
        rows: the records of each row of the section's tables -> the row's id.
        letters: whose outlines earlier figures of the page have drawn; those of this one are added. Drawn again in
            each figure they would be a seventh of the page.
    """
    drawing = svg[svg.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(rf'\bid="(?!{FONT})([^"]+)"', rf'id="{name}.\1"', drawing)
    drawing = re.sub(rf'href="#(?!{FONT})([^"]+)"', rf'href="#{name}.\1"', drawing)
    drawing = _LETTER.sub(lambda found: "" if found[1] in letters else found[0], drawing)
    letters.update(found[1] for found in _LETTER.finditer(drawing))
    drawing = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}.\1)", drawing)
    for place, (point, said) in enumerate(kept.points.items()):
        mark = f'<g id="{name}.{point}"'
        drawing = drawing.replace(f"{mark}>", f"{mark}{_attributes(said, rows, place)}>", 1)
    shape = re.match(r'<svg[^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)
    size = f' style="aspect-ratio: {shape[1]} / {shape[2]}"' if shape else ""
    drawing = re.sub(r"^<svg[^>]*>", lambda found: _open(found[0], alt), drawing, count=1)
    return f'<div class="drawing" tabindex="0" role="group" aria-label="figure"{size}>\n{drawing}</div>\n'


def _open(tag: str, alt: str) -> str:
    """Return the SVG's first tag without a size of its own and with what the figure shows."""
    tag = re.sub(r' (width|height|version|xmlns(:xlink)?)="[^"]*"', "", tag)
    return f'{tag[:-1]} role="group" aria-label="{html.escape(alt)}">'


def _attributes(said: Mapping[str, Any], rows: Rows, place: int) -> str:
    row = _row(said["records"], rows)
    text = html.escape(str(said["text"]))
    found = f' class="point" data-tip="{text}" aria-label="{text}" tabindex="{-1 if place else 0}"'
    return f'{found} role="link" data-row="{row}"' if row else f'{found} role="img"'


def _row(records: list[str], rows: Rows) -> str | None:
    """Return the row that rests on the same records, else the first that rests on one of them."""
    wanted = frozenset(records)
    return rows.get(wanted) or next((row for found, row in rows.items() if found & wanted), None)
