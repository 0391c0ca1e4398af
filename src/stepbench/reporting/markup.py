"""Escaping: text from outside (a device's name, an exception's message) stays plain text in Markdown and HTML."""

from __future__ import annotations

import html
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from urllib.parse import quote

BREAK = "<br>"  # the one tag in our Markdown: a second line inside a table's cell

# An underscore inside a word is one; GitHub strikes out between single tildes and sets formulas between dollars.
_SPECIAL = re.compile(r"([\\`*|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_HIDDEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")  # controls, marks that turn the direction of text round, and the like


def plain(text: object) -> str:
    """Return `text` on one line, with what cannot be seen replaced by a sign that can."""
    line = " ".join(str(text).split())
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(sign) in _HIDDEN else sign for sign in line)


def escape(text: object) -> str:
    """Return Markdown that shows `text`, on one line, and does nothing else."""
    line = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _SPECIAL.sub(r"\\\1", line)
    # A bracket opens a link only if one of these follows it; `[1.80, 1.95]` stays readable in the source.
    line = re.sub(r"\](?=[(\[:])", r"\\]", line)
    line = re.sub(r"(?i)\b(https?|ftp)://", lambda match: f"{match[1]}:&#47;&#47;", line)
    # What would begin a heading, a list or a rule, at the beginning of a line alone.
    line = re.sub(r"^(#+|\+|-+|=+)(?=\s|$)", r"\\\1", line)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", line)


def unescape(text: str) -> str:
    """Return what a terminal shows of a table cell's Markdown: the text itself, each break as a line."""
    return html.unescape(re.sub(r"\\([^A-Za-z0-9\s])", r"\1", text.replace(BREAK, "\n")))


def link(text: str, path: str) -> str:
    """Return a Markdown link to a file of ours."""
    return f"[{escape(text)}]({quote(path, safe='/~,.-_')})"


def records(paths: Mapping[str, Iterable[str]], folder: str) -> str:
    """Return links to records: `json` for a single one, several by their replicates.

    Args:
        paths: what they are -> `results/<machine>/<experiment>/<cell>.json` of each.
        folder: where the text lies, relative to the root as the paths are.
    """
    parts = []
    for what, several in paths.items():
        found = list(several)
        links = [
            link(_replicate(path) if len(found) > 1 else "json", posixpath.relpath(path, folder)) for path in found
        ]
        if links:
            parts.append(" ".join([escape(what), *links] if what else links))
    return BREAK.join(parts) or "–"


def _replicate(path: str) -> str:
    _, axis, number = PurePosixPath(path).stem.rpartition(",replicate~")
    return number if axis else "json"
