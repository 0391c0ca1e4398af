from __future__ import annotations

import base64
import re

import pytest

from stepbench.reporting import page, page_figures, page_tables, tables
from stepbench.reporting.drawing import Kept
from stepbench.reporting.embedded import Embedded


def test_headings_become_contents(tmp_path):
    body, entries = page.render("# T\n\n## One *two*\n\n### Findings\n\n## B\n\n### Findings\n", tmp_path)
    assert [(entry.text, entry.id, [inner.id for inner in entry.inner]) for entry in entries] == [
        ("One two", "one-two", ["findings"]),
        ("B", "b", ["findings-2"]),
    ]
    assert '<h3 id="findings-2">' in body


def test_html_in_the_text_is_text_and_only_our_line_break_is_obeyed(tmp_path):
    body, _ = page.render("a<br>b <script>x</script>\n\n<div onclick=x>\n\n<details>", tmp_path)
    assert "a<br" in body
    assert "&lt;script&gt;" in body
    assert not re.search(r"<(script|div|details)", body)


def test_links_of_scripts_are_no_links(tmp_path):
    body, _ = page.render("[a](javascript:alert(1)) [b](data:text/html;base64,xx) [c](../results/a~b,c.json)", tmp_path)
    assert re.findall(r'href="([^"]*)"', body) == ["../results/a~b,c.json"]


def test_images_become_data(tmp_path):
    (tmp_path / "x.svg").write_text("<svg>é</svg>")
    body, _ = page.render('![a "b" <c>](x.svg)\n', tmp_path)
    data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', body)[1]
    assert base64.b64decode(data).decode() == "<svg>é</svg>"
    assert 'class="figure"' in body
    assert "<c>" not in body


def test_a_missing_image_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        page.render("![a](gone.svg)", tmp_path)


def table(rows, cell="1 ms"):
    return "| a |\n| ---: |\n" + f"| {cell} |\n" * rows


def test_wide_tables_scroll_and_their_cells_know_their_column(tmp_path):
    body, _ = page.render(table(3), tmp_path)
    assert '<div class="scroll"' in body
    assert body.count('data-label="a"') == 3


def test_blocks_are_html_of_ours_and_nobody_elses_fence_is(tmp_path):
    body, _ = page.render(f"a\n\n{page.block('x')}\n\n```js\n<script>\n```\n", tmp_path, {"x": "<b>bold</b>"})
    assert "<b>bold</b>" in body
    assert "<script>" not in body
    with pytest.raises(KeyError):
        page.render(page.block("gone"), tmp_path)


def test_a_cell_is_html_with_its_unit_joined():
    assert page.inline("12.3 ms") == "12.3\N{NO-BREAK SPACE}ms"
    assert page.inline(r"a<br>\`b\` &lt;c&gt; <d>") == "a<br />\n`b` &lt;c&gt; &lt;d&gt;"


def test_long_cells_break_and_numbers_keep_their_unit(tmp_path):
    body, _ = page.render(table(1, "x " * 40) + "\n\ntakes 12.3 ms, 41 % of 3 samples", tmp_path)
    assert '<td style="text-align:right" data-label="a" class="long">' in body
    assert "12.3\N{NO-BREAK SPACE}ms, 41\N{NO-BREAK SPACE}% of 3 samples" in body
    two_lines, _ = page.render(table(1, f"{'x' * 30}<br>{'y' * 30}"), tmp_path)
    assert "long" not in two_lines


def test_a_table_is_filtered_by_what_all_of_its_rows_have(tmp_path):
    rows = [
        {"size": "nano", "rung": "sdpa"},
        {"size": "nano", "groups": "none"},
        {"size": "micro", "groups": "1"},
        {"size": "small", "rung": "sdpa"},
    ]
    shown = tables.show(tables.Table("T", "C", rows, [tables.Column("size", lambda row: row["size"])]))
    assert page_tables.filters_of(shown) == ["size"]
    text = page_tables.render(shown, "name", Embedded(tmp_path), str, str)
    assert text.count("data-values=") == 4


def test_a_letter_is_drawn_once_on_a_page_and_used_by_every_figure():
    letter = '<path id="DejaVuSans-13" d="M 1 2" transform="scale(0.015625)"/>'
    svg = f'<svg viewBox="0 0 2 1"><g id="text_1"><defs>{letter}</defs><use xlink:href="#DejaVuSans-13"/></g></svg>'
    letters: set[str] = set()
    first, second = (page_figures.render(svg, name, Kept("d", "", {}), "alt", {}, letters) for name in ("a", "b"))
    assert letters == {"DejaVuSans-13"}
    assert letter in first
    assert "<path" not in second
    assert all('xlink:href="#DejaVuSans-13"' in each for each in (first, second))
    assert 'id="a.text_1"' in first
    assert 'id="b.text_1"' in second
