"""Our Markdown as the inside of an HTML page that needs no other file: figures become data, long tables fold."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from stepbench.reporting import markup

LONG_CELL = 36  # characters from which on a table's cell breaks its line
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|[mµn]?s\b|[KMGT]iB\b|[kMGT]B/s|[MGT]?FLOP/s))")
FOLD_ROWS = 40  # a table with more is folded away until it is asked for


@dataclass
class Entry:
    """One heading in the table of contents."""

    text: str
    id: str
    inner: list[Entry] = field(default_factory=list)


def render(markdown: str, folder: Path) -> tuple[str, list[Entry]]:
    """Return the HTML of `markdown` and its headings of the second and third level.

    No HTML in the Markdown is obeyed, except for the line break of `stepbench.reporting.markup`.

    Args:
        markdown: the text.
        folder: where the text's relative paths begin.

    Raises:
        FileNotFoundError: an image is missing.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.inline.ruler.before("html_inline", "line_break_tag", _line_break)
    parser.add_render_rule("image", lambda self, tokens, index, *_: _image(tokens[index], folder))
    tokens = parser.parse(markdown)
    entries = _number_headings(tokens)
    _mark_figures(tokens)
    _mark_long_cells(tokens)
    _join_units(tokens)
    return parser.renderer.render(_wrap_tables(tokens), parser.options, {}), entries


def _line_break(state: StateInline, silent: bool) -> bool:
    if not state.src.startswith(markup.BREAK, state.pos):
        return False
    if not silent:
        state.push("hardbreak", "br", 0)
    state.pos += len(markup.BREAK)
    return True


def _image(token: Token, folder: Path) -> str:
    path = folder / str(token.attrs["src"])
    kind = {".svg": "svg+xml", ".png": "png"}[path.suffix]
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    text = token.content.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f'<img alt="{text}" src="data:image/{kind};base64,{data}">'


def _number_headings(tokens: Sequence[Token]) -> list[Entry]:
    """Give each heading an id, and return those of the second level with those of the third below them."""
    entries: list[Entry] = []
    seen: dict[str, int] = {}
    for token, inline in itertools.pairwise(tokens):
        if token.type != "heading_open":
            continue
        text = "".join(child.content for child in inline.children or ())
        slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
        seen[slug] = seen.get(slug, 0) + 1
        name = slug if seen[slug] == 1 else f"{slug}-{seen[slug]}"
        token.attrSet("id", name)
        if token.tag == "h2":
            entries.append(Entry(text, name))
        elif token.tag == "h3" and entries:
            entries[-1].inner.append(Entry(text, name))
    return entries


def _mark_figures(tokens: Sequence[Token]) -> None:
    for token, inline in itertools.pairwise(tokens):
        children = inline.children or ()
        if token.type == "paragraph_open" and len(children) == 1 and children[0].type == "image":
            token.attrSet("class", "figure")


def _mark_long_cells(tokens: Sequence[Token]) -> None:
    for token, inline in itertools.pairwise(tokens):
        if token.type == "td_open":
            lines = re.split(r"\n", "".join(_text(child) for child in inline.children or ()))
            if max(map(len, lines)) > LONG_CELL:
                token.attrSet("class", "long")


def _join_units(tokens: Sequence[Token]) -> None:
    """Keep a number and its unit on one line."""
    for token in tokens:
        for child in token.children or ():
            if child.type == "text":
                child.content = _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", child.content)


def _text(token: Token) -> str:
    return "\n" if token.type == "hardbreak" else token.content


def _wrap_tables(tokens: Sequence[Token]) -> list[Token]:
    """Let wide tables scroll on their own, and fold long ones."""
    wrapped: list[Token] = []
    for index, token in enumerate(tokens):
        if token.type == "table_open":
            rows = _rows(tokens[index:])
            fold = f"<details><summary>Show the {rows} rows</summary>\n" if rows > FOLD_ROWS else ""
            wrapped += [_raw(f'{fold}<div class="scroll" tabindex="0">\n'), token]
        elif token.type == "table_close":
            fold = "</details>\n" if _rows_before(tokens, index) > FOLD_ROWS else ""
            wrapped += [token, _raw(f"</div>\n{fold}")]
        else:
            wrapped.append(token)
    return wrapped


def _rows(tokens: Sequence[Token]) -> int:
    end = next(index for index, token in enumerate(tokens) if token.type == "table_close")
    return sum(token.type == "tr_open" for token in tokens[:end]) - 1  # less the heading


def _rows_before(tokens: Sequence[Token], close: int) -> int:
    start = max(index for index in range(close) if tokens[index].type == "table_open")
    return _rows(tokens[start:])


def _raw(html: str) -> Token:
    settings: dict[str, Any] = {"content": html}
    return Token("html_block", "", 0, **settings)
