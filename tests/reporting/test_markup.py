"""Text of others does nothing in Markdown or HTML, whoever wrote it."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from stepbench.reporting import markup

# GitHub's Markdown, raw HTML included: the writeup must be inert there too, not only on our own page.
GITHUB = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/x.png)",
    "<https://evil.example>",
    "# heading",
    "1. list",
    "- list",
    "> quote",
    "*bold* _it_ `code` ~~struck~~ $x$",
    "a | b",
    "&lt;b&gt; &amp; &#60;",
    "[x]: https://evil.example",
    "two\nlines\r\n\r\nand more",
    "ends with a backslash \\",
    "===",
    "--- ",
    "{{ 7 * 7 }} {% raw %}",
    "size~nano,warmup~0",
]


def shown(markdown):
    """What a reader sees of a paragraph, and the tags in it."""
    rendered = GITHUB.render(f"Reason: {markdown}")
    inner = rendered.removeprefix("<p>").removesuffix("</p>\n")
    return html.unescape(re.sub(r"<[^>]*>", "", inner)).removeprefix("Reason: "), re.findall(r"<[^>]*>", inner)


@pytest.mark.parametrize("text", NASTY)
def test_nasty_text_is_shown_and_does_nothing(text):
    seen, tags = shown(markup.escape(text))
    assert tags == []
    assert seen == markup.plain(text)


@given(st.text(max_size=60))
def test_any_text_is_shown_and_does_nothing(text):
    seen, tags = shown(markup.escape(text) + " .")
    assert tags == []
    assert seen.split() == [*markup.plain(text).split(), "."]


@given(st.text(alphabet="-=+#>*_~`|. 1a\t\n", max_size=12))
def test_nothing_begins_a_block(text):
    assert set(re.findall(r"<(\w+)", GITHUB.render(markup.escape(text)))) <= {"p"}


@pytest.mark.parametrize("text", NASTY)
def test_nasty_text_stays_in_its_cell(text):
    rendered = GITHUB.render(f"| a | b |\n| :--- | :--- |\n| {markup.escape(text)} | end |\n")
    assert rendered.count("<td") == 2
    assert set(re.findall(r"<(\w+)", rendered)) == {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("text", NASTY)
def test_nasty_text_at_the_beginning_of_a_paragraph_stays_text(text):
    rendered = GITHUB.render(markup.escape(text))
    assert set(re.findall(r"<(\w+)", rendered)) == {"p"}


def test_what_cannot_be_seen_is_replaced():
    assert (
        markup.plain("a\u202eb\x07c\u200bd")
        == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c\N{REPLACEMENT CHARACTER}d"
    )


def test_intervals_and_names_stay_readable_in_the_source():
    assert markup.escape("1.87× [1.80, 1.95] of d_model") == "1.87× [1.80, 1.95] of d_model"


def test_links_to_records_are_named_by_replicate():
    paths = [f"results/m/warmup/size~nano,warmup~0,replicate~{index}.json" for index in (0, 1)]
    assert markup.records({"": paths[:1]}, "results/m/tables/warmup") == (
        "[json](../../warmup/size~nano,warmup~0,replicate~0.json)"
    )
    assert markup.records({"fp32": paths, "bf16": []}, "report").startswith("fp32 [0](../results/m/warmup/")
    assert markup.records({"": []}, ".") == "–"


@given(st.text())
def test_a_terminal_shows_the_text_itself(text: str) -> None:
    assert markup.unescape(markup.escape(text)) == markup.plain(text)


def test_a_terminal_breaks_the_line() -> None:
    assert markup.unescape(f"a\\_b{markup.BREAK}1&nbsp;&lt; 2") == "a_b\n1\N{NO-BREAK SPACE}< 2"
