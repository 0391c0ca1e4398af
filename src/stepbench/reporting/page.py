"""Our Markdown as the inside of an HTML page that needs no other file: images become data, blocks are HTML of ours."""

from __future__ import annotations

import base64
import functools
import html
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from stepbench.reporting import markup

LONG_CELL = 36  # characters from which on a table's cell breaks its line
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|[mµn]?s\b|[KMGT]iB\b|[kMGT]B/s|[MGT]?FLOP/s))")
_SPECIAL = re.compile(r"[\\`*_\[\]&<>!]")  # what may be more than text
FOLD_ROWS = 40  # a table with more is folded away until it is asked for


@dataclass
class Entry:
    """One heading in the table of contents, and the part of the report that begins with it, if one does."""

    text: str
    id: str
    part: str = ""
    inner: list[Entry] = field(default_factory=list)


BLOCK = "block"


def block(name: str) -> str:
    """Return Markdown in whose place `render` puts a block of HTML."""
    return f"```{BLOCK}\n{name}\n```"


def render(markdown: str, folder: Path, blocks: Mapping[str, str] | None = None) -> tuple[str, list[Entry]]:
    """Return the HTML of `markdown` and its headings of the second and third level.

    No HTML in the Markdown is obeyed, except for the line break of `stepbench.reporting.markup`.

    Args:
        markdown: the text.
        folder: where the text's relative paths begin.
        blocks: name -> HTML, for each `block` in the text.

    Raises:
        FileNotFoundError: an image is missing.
        KeyError: a block is missing.
    """
    parser = _new_parser()
    parser.add_render_rule("image", lambda self, tokens, index, *_: _image(tokens[index], folder))
    parser.add_render_rule("fence", lambda self, tokens, index, *_: _fence(tokens[index], blocks or {}))
    tokens = parser.parse(markdown)
    entries = _number_headings(tokens)
    _mark_figures(tokens)
    _mark_cells(tokens)
    _join_units(tokens)
    return parser.renderer.render(_wrap_tables(tokens), parser.options, {}), entries


def inline(markdown: str) -> str:
    """Return the HTML of a table's cell or heading."""
    if not _SPECIAL.search(markdown):
        return html.escape(_BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", markdown))
    parser = _parser()
    tokens = parser.parseInline(markdown)
    _join_units(tokens)
    return parser.renderer.render(tokens, parser.options, {})


def _new_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.inline.ruler.before("html_inline", "line_break_tag", _line_break)
    return parser


@functools.cache
def _parser() -> MarkdownIt:
    """Return the parser of cells; a table has hundreds."""
    return _new_parser()


def _fence(token: Token, blocks: Mapping[str, str]) -> str:
    name = token.content.strip()
    return blocks[name] if token.info.strip() == BLOCK else f"<pre>{html.escape(token.content)}</pre>\n"


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


def _mark_cells(tokens: Sequence[Token]) -> None:
    """Mark long cells, and label each with its column's heading, for screens too narrow for the table."""
    headings: list[str] = []
    place = 0
    for token, content in itertools.pairwise(tokens):
        text = "".join(_text(child) for child in content.children or ())
        if token.type == "table_open":
            headings = []
        elif token.type == "th_open":
            headings.append(text.replace("\n", " "))
        elif token.type == "tr_open":
            place = 0
        elif token.type == "td_open":
            if headings[place]:
                token.attrSet("data-label", headings[place])
            place += 1
            if max(map(len, text.split("\n"))) > LONG_CELL:
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
    """Let a wide table scroll on its own."""
    wrapped: list[Token] = []
    for token in tokens:
        if token.type == "table_open":
            wrapped += [_raw('<div class="scroll" tabindex="0">\n'), token]
        elif token.type == "table_close":
            wrapped += [token, _raw("</div>\n")]
        else:
            wrapped.append(token)
    return wrapped


def _raw(html: str) -> Token:
    settings: dict[str, Any] = {"content": html}
    return Token("html_block", "", 0, **settings)
