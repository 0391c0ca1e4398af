"""A report of made-up records, and a real Chromium that looks at it. No request may leave the page."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright
from tests.reporting import synthetic, synthetic_inside, synthetic_on_ranks
from tests.reporting.conftest import INSIDE_GRIDS, ON_RANKS_GRIDS, SMALL_GRIDS

from stepbench.comparison import exploration, machines
from stepbench.experiments import experiment as experiments
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States
from stepbench.reporting import browser as chromium
from stepbench.reporting import frames, rendering, writeup

MEASURED = {**synthetic.MEASURED, **synthetic_inside.MEASURED, **synthetic_on_ranks.MEASURED}
NAMES = ("ceilings", "end_to_end", "attention", "memory", "data_parallel")
WIDTHS = (390, 1400, 1920)


@pytest.fixture(scope="session")
def program() -> str:
    """The browser; where STEPBENCH_BROWSER says so it is no reason to skip that there is none."""
    found = chromium.find()
    if found is None and os.environ.get("STEPBENCH_BROWSER") != "required":
        pytest.skip("no Chromium on the PATH")
    assert found is not None, "STEPBENCH_BROWSER=required, and no Chromium is on the PATH"
    return found


@pytest.fixture(scope="session")
def bench(program: str, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench with the report and the page to explore, of a few experiments."""
    grids = {name: grid for name, grid in (SMALL_GRIDS | INSIDE_GRIDS | ON_RANKS_GRIDS).items() if name in NAMES}
    made = synthetic.bench(tmp_path_factory.mktemp("browser"), **grids)
    rng = synthetic.np.random.default_rng(0)
    for name in made.names:
        for place, cell in enumerate(made.grid(name)):
            values = MEASURED[name](made, cell, rng, 0.3 if name == "end_to_end" and place == 0 else 0.01)
            synthetic.write(made, name, cell, **values)
    states = States(made)
    shown = [experiments.load(name) for name in made.names]
    for each in shown:
        rendering.render(each, frames.load(states, each), made.root)
    writeup.write_up(states, shown, made.root / "report/writeup.md", made.root / "report/writeup.html")
    templates = synthetic.ROOT / "report" / "templates"
    (made.root / "report/explore.html").write_text(exploration.page(machines.load(states), templates), encoding="utf-8")
    return made


@pytest.fixture(scope="session")
def browser(program: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=chromium.flags())
        yield started
        started.close()


class Visit:
    """A page that was opened, with the requests that it made and the errors of its script."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.route("**/*", self._note)

    def _note(self, route: Route) -> None:
        self.requests.append(route.request.url)
        route.continue_()

    def open(self, file: Path, fragment: str = "") -> Page:
        self.page.goto(file.as_uri() + fragment)
        self.page.wait_for_function("document.documentElement.dataset.ready")
        return self.page

    def check(self) -> None:
        """No error, and nothing was asked for but files of ours."""
        assert self.errors == []
        assert [url for url in self.requests if not url.startswith(("file:", "blob:"))] == []


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    found = Visit(context.new_page())
    yield found
    found.check()
    context.close()
