"""The report's page in a real browser: it sorts, filters, folds, points and prints, and nothing leaves it."""

import csv
import io
import json
import re
import unicodedata
from pathlib import Path

import pypdf
import pytest
from playwright.sync_api import Page
from tests.browser.conftest import WIDTHS, Visit

from stepbench.cli.main import main
from stepbench.pipeline.bench import Bench
from stepbench.reporting import tables

TABLE = "#end_to_end-every_cell"


@pytest.fixture
def page(visit: Visit, bench: Bench) -> Page:
    return visit.open(bench.root / "report/writeup.html")


def column(page: Page, heading: str) -> list[str]:
    """Return the texts of a column of the table, of the rows that are shown."""
    return page.evaluate(
        """([table, heading]) => {
          const headings = [...document.querySelectorAll(`${table} thead th`)];
          const place = headings.findIndex((each) => each.textContent.startsWith(heading));
          return [...document.querySelectorAll(`${table} tbody tr`)].filter((row) => !row.hidden)
            .map((row) => row.cells[place].textContent);
        }""",
        [TABLE, heading],
    )


def press(page: Page, heading: str) -> None:
    page.locator(f"{TABLE} thead button.sort").filter(has_text=heading).first.click()


def number(text: str) -> float:
    return float(re.sub(r"[^\d.]", "", text.partition("[")[0]))


def test_a_press_on_a_heading_sorts_by_value_and_says_so(page: Page) -> None:
    before = column(page, "tokens/s")
    assert before != sorted(before, key=number)
    press(page, "tokens/s")
    assert column(page, "tokens/s") == sorted(before, key=number)
    heading = page.locator(f"{TABLE} thead th").filter(has_text="tokens/s")
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert column(page, "tokens/s") == sorted(before, key=number, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    press(page, "tokens/s")
    assert column(page, "tokens/s") == before


def test_a_filter_leaves_the_rows_of_one_value_and_the_csv_has_just_these(page: Page, bench: Bench) -> None:
    all_rows = len(column(page, "size"))
    page.locator(f"{TABLE} select[name=context]").select_option("128")
    assert set(column(page, "context")) == {"128"}
    left = len(column(page, "size"))
    assert page.locator(f"{TABLE} .count").inner_text() == f"{left} of {all_rows} rows"
    with page.expect_download() as download:
        page.locator(f"{TABLE} .download").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert {row["context"] for row in rows} == {"128"}
    file = bench.root / f"results/{bench.machine}/tables/end_to_end/every_cell.csv"
    raw = list(csv.DictReader(file.open()))
    assert rows == [row for row in raw if row["context"] == "128"]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_column_is_hidden_without_a_switch_that_shows_it(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(300)
    found = page.evaluate(
        """() => ({
          wide: document.documentElement.scrollWidth,
          over: [...document.querySelectorAll(".scroll")].filter((each) => each.scrollWidth > each.clientWidth + 1)
            .map((each) => each.ariaLabel),
          unsaid: [...document.querySelectorAll(".table")].filter((each) => each.querySelector("tbody .folded") &&
            each.querySelector(".more").hidden).map((each) => each.id),
        })"""
    )
    assert found == {"wide": width, "over": [], "unsaid": []}


def test_the_switch_shows_the_folded_columns_and_the_first_one_stays_in_sight(page: Page) -> None:
    page.set_viewport_size({"width": 800, "height": 900})
    page.wait_for_timeout(300)
    more = page.locator(f"{TABLE} .more")
    assert more.get_attribute("aria-expanded") == "false"
    assert page.locator(f"{TABLE} thead th.folded").count() > 0
    assert page.locator(f"{TABLE} thead th.folded").filter(has_text="tokens/s").count() == 0
    more.click()
    assert more.get_attribute("aria-expanded") == "true"
    assert page.locator(f"{TABLE} thead th.folded").count() == 0
    page.locator(f"{TABLE} .scroll").evaluate("(each) => each.scrollTo(9999, 0)")
    box = page.locator(f"{TABLE} tbody th").first.bounding_box()
    frame = page.locator(f"{TABLE} .scroll").bounding_box()
    assert box is not None
    assert frame is not None
    assert abs(box["x"] - frame["x"]) < 3


def test_on_a_phone_the_title_comes_first_and_rows_name_their_columns(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    tops = [page.locator(each).bounding_box() for each in ("h1", "#contents", "main h2 >> nth=0")]
    assert all(box is not None for box in tops)
    places = [box["y"] for box in tops if box]
    assert places == sorted(places)
    assert places[-1] < 844
    label = page.locator(f"{TABLE} tbody td").first.evaluate("(each) => getComputedStyle(each, '::before').content")
    assert label == '"context"'


def test_pointing_at_a_point_says_its_value_and_a_click_leads_to_its_row(page: Page, bench: Bench) -> None:
    point = page.locator("[id='end_to_end.context.point-0']")
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    place = (box["x"] + box["width"] / 2 + 6, box["y"] + box["height"] / 2)  # beside it is near enough
    page.mouse.move(*place)
    said = page.locator("#tip").inner_text()
    kept = json.loads((bench.root / f"results/{bench.machine}/figures/end_to_end/context.json").read_text())
    assert said.startswith(kept["points"]["point-0"]["text"])
    assert re.search(r"nano.*\d [mµ]?s \[", said)
    page.mouse.click(*place)
    row = page.locator("tr.target")
    assert row.count() == 1
    assert page.url.endswith(f"#{row.get_attribute('id')}")
    links = row.locator("a[data-record]")
    paths = page.evaluate("JSON.parse(document.getElementById('record-paths').textContent)")
    shown = [paths[int(links.nth(each).get_attribute("data-record") or "")] for each in range(links.count())]
    assert set(kept["points"]["point-0"]["records"]) <= set(shown)
    seen = row.bounding_box()
    assert seen is not None
    assert 0 <= seen["y"] < 900


def test_points_are_reached_by_keys(page: Page) -> None:
    page.locator("[id='end_to_end.context.point-0']").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id").startswith("end_to_end.context.point-")
    assert page.evaluate("document.activeElement.id") != "end_to_end.context.point-0"
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Enter")
    assert page.locator("tr.target").count() == 1


def test_a_link_to_a_row_opens_what_is_closed_around_it_and_clears_filters(visit: Visit, bench: Bench) -> None:
    page = visit.open(bench.root / "report/writeup.html", "#end_to_end-every_cell-1")
    assert page.locator("tr.target").get_attribute("id") == "end_to_end-every_cell-1"
    page.locator(f"{TABLE} select[name=size]").select_option("micro")
    page.evaluate("location.hash = '#end_to_end-every_cell-0'")
    page.wait_for_function("document.querySelector('tr.target')?.id === 'end_to_end-every_cell-0'")
    assert page.locator("tr.target").is_visible()


def test_a_mailed_page_opens_its_records(visit: Visit, bench: Bench, tmp_path: Path) -> None:
    mailed = tmp_path / "mailed.html"
    mailed.write_bytes((bench.root / "report/writeup.html").read_bytes())
    page = visit.open(mailed)
    page.locator(f"{TABLE} a[data-record]").first.click()
    page.wait_for_selector("dialog[open]")
    path = page.locator("dialog h2").inner_text()
    assert page.locator("dialog pre").text_content() == (bench.root / path).read_text()
    with page.expect_download() as download:
        page.locator("dialog .save").click()
    assert Path(download.value.path()).read_bytes() == (bench.root / path).read_bytes()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_the_printed_report_holds_every_column_of_every_table(bench: Bench, tmp_path: Path) -> None:
    target = tmp_path / "report.pdf"
    assert main(["--root", str(bench.root), "print", "--to", str(target)]) == 0
    reader = pypdf.PdfReader(target)
    text = squeezed("".join(page.extract_text() for page in reader.pages))
    sizes = {tuple(sorted(map(round, page.mediabox[2:]))) for page in reader.pages}
    assert sizes == {(595, 842)}  # A4, upright or across
    files = sorted((bench.root / f"results/{bench.machine}/tables").glob("*/*.json"))
    assert len(files) > 10
    missing = []
    for file in files:
        shown = tables.read(file)
        if not shown.rows:  # one line says so
            continue
        missing += [
            f"{file.stem}: {each['heading']}" for each in shown.columns if squeezed(each["heading"]) not in text
        ]
        for row in shown.rows[:1] + shown.rows[-1:]:
            missing += [f"{file.stem}: {cell}" for cell in row.texts if squeezed(cell) not in text]
    assert missing == []
    # Headings stand again where a table goes on: a title and a caption stand before them elsewhere.
    headings = tuple(squeezed("".join(each["heading"] for each in tables.read(file).columns[:2])) for file in files)
    again = [page for page in reader.pages if squeezed(page.extract_text()).startswith(tuple(filter(None, headings)))]
    assert len(again) > 1


def squeezed(text: str) -> str:
    """Return text without what line breaks and Markdown add."""
    text = unicodedata.normalize("NFKC", text)  # a printed page has ligatures
    text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace("<br>", "")
    return re.sub(r"[\s\\\u00a0\u202f\u2009\u00ad↕]+", "", text)


def test_a_picture_of_the_first_screen_is_taken(bench: Bench, tmp_path: Path) -> None:
    assert main(["--root", str(bench.root), "print", "--to", str(tmp_path / "first.png")]) == 0
    assert (tmp_path / "first.png").read_bytes()[:4] == b"\x89PNG"
