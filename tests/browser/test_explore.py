"""The page that draws records as its reader chooses, in a real browser."""

import re

from playwright.sync_api import Page
from tests.browser.conftest import Visit
from tests.reporting import synthetic

from stepbench.comparison import exploration, machines
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States


def dots(page: Page) -> int:
    return page.locator("#plot [aria-label=dot] circle").count()


def choose(page: Page, name: str, value: str) -> None:
    page.locator(f"select[name='{name}']").select_option(value)


def test_it_draws_each_point_with_its_interval_and_hollow_where_it_has_a_warning(visit: Visit, bench: Bench) -> None:
    page = visit.open(bench.root / "report/explore.html", "#e=end_to_end")
    choose(page, "f.machine", bench.machine)
    found = exploration.collect(machines.load(States(bench)))["experiments"]["end_to_end"]
    step = found["metrics"].index("step_s")
    mine = [point for point in found["points"] if point[0][0] == bench.machine and step in point[1]]
    choose(page, "y", "step_s")
    assert dots(page) == len(mine) > 3
    hollow = page.locator("#plot [aria-label=dot][fill=white] circle").count()
    assert hollow == sum(bool(point[1][step][3]) for point in mine) > 0
    assert page.locator("#plot [aria-label=rule] line").count() == sum(point[1][step][1] is not None for point in mine)


def test_it_filters_and_a_shared_link_shows_the_same(visit: Visit, bench: Bench) -> None:
    file = bench.root / "report/explore.html"
    page = visit.open(file, "#e=end_to_end")
    choose(page, "f.machine", bench.machine)
    every = dots(page)
    choose(page, "f.size", "nano")
    choose(page, "c", "precision")
    choose(page, "p", "implementation")
    page.locator("input[name=ly]").uncheck()
    left = dots(page)
    assert 0 < left < every
    link, said = page.url, page.locator("#said").inner_text()
    picture = page.locator("#plot").inner_html()
    other = visit.open(file, f"#{link.partition('#')[2]}")
    other.reload()
    other.wait_for_function("document.documentElement.dataset.ready")
    assert other.locator("#said").inner_text() == said
    assert other.locator("select[name=c]").input_value() == "precision"
    assert not other.locator("input[name=ly]").is_checked()
    assert other.locator("#plot").inner_html() == picture


def test_pointing_tells_value_warnings_and_record(visit: Visit, bench: Bench) -> None:
    page = visit.open(bench.root / "report/explore.html", "#e=end_to_end&y=step_s")
    choose(page, "f.machine", bench.machine)
    box = page.locator("#plot [aria-label=dot] circle").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#plot [aria-label=tip] text", state="attached")
    said = page.locator("#plot [aria-label=tip]").text_content() or ""
    assert "step s: " in said
    assert "warning" in said
    assert f"results/{bench.machine}/end_to_end/" in re.sub(r"[\s\u200b]", "", said)


def test_an_address_with_nonsense_draws_something(visit: Visit, bench: Bench) -> None:
    page = visit.open(bench.root / "report/explore.html", "#e=nothing&x=<script>&y=none&f.size=gone")
    assert page.locator("#said").inner_text().endswith("points.")


def test_five_thousand_points_are_drawn(visit: Visit, bench: Bench) -> None:
    found = exploration.collect(machines.load(States(bench)))
    made = found["experiments"]["end_to_end"]
    (point, *_), place = made["points"], made["axes"].index("context")
    made["points"] = [[[*point[0][:place], str(1 + n), *point[0][place + 1 :]], *point[1:]] for n in range(5000)]
    file = bench.root / "report/many.html"
    file.write_text(exploration.show("many", found, synthetic.ROOT / "report" / "templates"), encoding="utf-8")
    assert dots(visit.open(file, "#e=end_to_end")) == 5000
