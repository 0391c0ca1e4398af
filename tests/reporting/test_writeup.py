"""The report renders from whatever there is, names what is missing, escapes what others wrote, leads to its files."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from pathlib import Path

import jinja2
import numpy as np
import pytest
from tests.reporting import synthetic, synthetic_inside, synthetic_on_ranks
from tests.reporting.conftest import SMALL_GRIDS, markdown

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import records
from stepbench.pipeline.state import States
from stepbench.reporting import embedded, frames, marks, rendering, sections, statistics, templates, units, writeup

RUN = {"started": "2026-01-01", "cells": 3, "wall_s": 100.0, "inside_s": 91.0, "overhead_per_cell_s": 3.0}
FEW_GRIDS = {"end_to_end": [{"size": ["nano"], "context": [64, 128, 256, 512]}], "numerics": SMALL_GRIDS["numerics"]}
NASTY = "<script>alert(1)</script> | *x* [a](javascript:b) `c`"


def rendered(bench, run=None):
    """Write tables, figures and the writeup, and return its two texts."""
    states = States(bench)
    shown = [experiments.load(name) for name in bench.names]
    for experiment in shown:
        rendering.render(experiment, frames.load(states, experiment), bench.root)
    targets = bench.root / "report" / "writeup.md", bench.root / "report" / "writeup.html"
    writeup.write_up(states, shown, *targets, run)
    return tuple(target.read_text(encoding="utf-8") for target in targets)


@pytest.fixture(scope="module")
def fine(tmp_path_factory):
    bench = synthetic.bench(tmp_path_factory.mktemp("fine"), **SMALL_GRIDS)
    synthetic.fill(bench)
    return bench, *rendered(bench, RUN)


def total(bench):
    return sum(len(bench.grid(name)) for name in bench.names)


class Reader(html.parser.HTMLParser):
    """Collects tags, links and ids, and checks that what opens also closes."""

    VOID = ("meta", "img", "br", "hr", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        self.links += [values["href"]] if "href" in values else []
        self.ids += [values["id"]] if "id" in values else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in self.VOID or "svg" in self.open
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_everything_is_in_it(fine):
    bench, text, page = fine
    for name in SMALL_GRIDS:
        experiment = experiments.load(name)
        assert f"## {experiment.title}" in text
        assert experiment.question in text
        for figure in experiment.figure_names:
            assert f"/figures/{name}/{figure}.svg)" in text
    assert "Imaginary CPU" in text
    assert f"{total(bench)} of {total(bench)} cells gave numbers." in text
    assert "3 steps of warm-up, then 7 steps by phases" in text
    assert "took 100 s of wall time for 3 cells, 91.0 s of it inside measurements" in text
    assert "cost 3.00 s per cell" in text
    assert "Cells without numbers" not in text
    assert "Undefined" not in text + page
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+", "", text.lower())
    assert "None" not in text.replace("None of the", "")


def test_the_page_needs_nothing_else(fine):
    _, _, page = fine
    read = Reader(page)
    drawings = [values for tag, values in read.tags if values.get("class") == "drawing"]
    assert len(drawings) == sum(len(experiments.load(name).figure_names) for name in SMALL_GRIDS)
    assert not {tag for tag, _ in read.tags} & {"img", "iframe", "link", "object", "embed", "form"}
    outside = {link for link in read.links if not link.startswith(("#", "../results/"))}
    assert outside == {"explore.html"}
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert not any(name.startswith("on") for _, values in read.tags for name in values)
    assert not any(values.get("src") for _, values in read.tags)


def test_one_script_runs_and_only_that(fine):
    _, _, page = fine
    scripts = re.findall(r"<script(?P<kind>[^>]*)>(.*?)</script>", page, re.DOTALL)
    (script,) = [text for kind, text in scripts if not kind]
    assert all('type="application/' in kind for kind, text in scripts if text != script)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_the_page_carries_its_records_and_tables_along(fine):
    bench, _, page = fine
    (paths,) = re.findall(r'id="record-paths">(.*?)</script>', page)
    packed = {name: embedded.unpack(text) for name, text in re.findall(r'id="packed:([^"]*)">([^<]*)<', page)}
    carried = {path: text for name, part in packed.items() if name != "csv" for path, text in part.items()}
    assert sorted(json.loads(paths)) == sorted(carried)
    assert carried == {path: (bench.root / path).read_text() for path in carried}
    assert set(carried) == {str(bench.path(cell)) for name in bench.names for cell in bench.grid(name)}
    for name in bench.names:
        for table in experiments.load(name).table_names:
            if (lines := packed["csv"].get(f"{name}-{table}")) is not None:
                file = bench.root / f"results/{bench.machine}/tables/{name}/{table}.csv"
                assert "".join(lines) == file.read_text()


def test_points_of_figures_lead_to_rows_with_the_same_records(fine):
    read = Reader(fine[2])
    points = [values for tag, values in read.tags if values.get("class") == "point"]
    assert len(points) > 20
    assert {values["data-row"] for values in points if "data-row" in values} <= set(read.ids)
    assert sum("data-row" in values for values in points) > 0.9 * len(points)
    assert all(values["data-tip"] == values["aria-label"] for values in points)


def test_sections_stand_in_the_order_of_a_readers_questions(fine):
    _, text, page = fine
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[:2] == ["Summary", "End to end"]
    assert titles[-5:] == ["What ran", "The machine", "The protocol", "Warnings", "How to trace a number"]
    assert text.count("noisy: ") + text.count("**noisy**: ") < 5
    assert page.index("<h1>") < page.index('id="contents"') < page.index("<main>")
    section = text.partition("## End to end")[2].partition("\n## ")[0]
    parts = ["*What do", "**Answer.** ", "**Figure 1. ", "### Findings", "| size |"]
    assert sorted(parts, key=section.index) == parts
    numbers = [int(number) for number in re.findall(r"\*\*Figure (\d+)\.", text)]
    assert numbers == list(range(1, len(numbers) + 1))
    order = sections.order(synthetic.ROOT / "report/sections.yaml", [*experiments.names(), "new"])
    assert [name for part, name in order if part == sections.OTHER] == ["new"]
    assert len(order) == len(set(order)) == len(experiments.names()) + len(sections.OTHERS) + 1


def test_the_contents_lead_to_headings(fine):
    read = Reader(fine[2])
    inner = [link[1:] for link in read.links if link.startswith("#")]
    assert inner
    assert set(inner) <= set(read.ids)
    assert len(read.ids) == len(set(read.ids))


def test_each_number_of_a_table_leads_to_its_records(fine):
    bench, text, page = fine
    rows = [line for line in text.splitlines() if line.startswith("| ") and "](../results/" in line]
    assert len(rows) > 30
    for line in rows:
        for target in re.findall(r"\]\((\.\./results/[^)]+)\)", line):
            assert (bench.root / "report" / target).is_file()
    records = {str(bench.path(cell)) for name in bench.names for cell in bench.grid(name)}
    linked = {target.removeprefix("../") for target in Reader(page).links if target.endswith(".json")}
    assert linked == records


def cells_of(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_a_number_is_what_the_raw_samples_of_its_records_say(fine):
    bench, text, _ = fine
    table = [line for line in text.partition("### Every cell")[2].partition("## ")[0].splitlines() if line[:1] == "|"]
    headings = cells_of(table[0])
    (place,) = [index for index, heading in enumerate(headings) if heading.startswith("whole step (")]
    (unit,) = [unit for unit in units.SECONDS if headings[place] == f"whole step ({unit.name})"]
    assert len(table) > 10
    for line in table[2:]:
        paths = [bench.root / "report" / target for target in re.findall(r"\]\((\.\./results/[^)]+)\)", line)]
        medians = [statistics.medians([records.read(path).samples["step_s"]])[0] for path in paths]
        shown = float(cells_of(line)[place].partition(" ")[0])
        assert shown == pytest.approx(float(np.exp(np.log(medians).mean())) / unit.size, rel=0.02)


@pytest.mark.parametrize(
    "name", sorted({**synthetic.MEASURED, **synthetic_inside.MEASURED, **synthetic_on_ranks.MEASURED})
)
def test_each_row_with_a_number_leads_to_records_that_can_be_believed(everything, name):
    made = experiments.load(name).tabulate(frames.load(States(everything), experiments.load(name)))
    # What kernels compile to, and what is predicted from it, is no measurement; the caption says where it comes from.
    for title, table in made.items():
        if table.caption.startswith(("Compiled without a GPU", "Predicted, not measured", "Published on")):
            continue
        for line in [line for line in markdown(table).splitlines() if line[:1] == "|"][2:]:
            targets = re.findall(r"\]\(\.\./\.\./([^)]+)\)", line)
            assert targets or not re.search(r"\d", re.sub(r"`[^`]*`", "", line)), f"{title}: {line}"
            for target in targets:
                record = records.read(everything.root / "results" / everything.machine / target)
                assert record.samples or record.scalars or record.reason


def test_sentences_lead_to_the_folders_of_their_records(fine):
    bench, text, page = fine
    section = text.partition("## End to end")[2].partition("Source: ")[2].partition("\n")[0]
    folders = re.findall(r"\]\((\.\./results/[^)]+)\)", section)
    assert [Path(folder).name for folder in folders] == ["end_to_end", "ceilings", "warmup"]
    for folder in folders:
        assert any(records.read(path).ok for path in (bench.root / "report" / folder).glob("*.json"))
        assert folder in Reader(page).links


def test_a_noisy_cell_is_marked_in_table_figure_and_text(tmp_path):
    bench = synthetic.bench(tmp_path, end_to_end=[{"size": ["nano"], "context": [64, 128]}])
    for cell, spread in zip(bench.grid("end_to_end"), (0.01, 0.4), strict=True):
        fields = synthetic.decoder_step(bench, cell, np.random.default_rng(3), spread)
        synthetic.write(bench, "end_to_end", cell, **fields)
    text, page = rendered(bench)
    quiet, noisy = [line for line in text.partition("### Every cell")[2].splitlines() if "](../results/" in line]
    assert "noisy" not in quiet
    assert re.search(r"\| [BCD]: .*noisy \(.*step CV \d+ %", noisy)
    assert "1 is noisy (nano, context 128)" in text
    for told in (text, re.sub("<[^>]*>", "", page)):
        plain = html.parser.unescape(told).replace("\N{NO-BREAK SPACE}", " ").replace("*", "")
        assert f"noisy: {marks.MEANING['noisy']}" in plain
    drawn = experiments.load("end_to_end").plot(frames.load(States(bench), experiments.load("end_to_end")))["context"]
    faces = [line.get_markerfacecolor() for line in drawn.axes[1].lines if len(line.get_xdata()) == 1]
    assert [face == "white" for face in faces] == [False, True]


def test_every_warning_is_explained(fine):
    _, text, _ = fine
    for kind in ("noisy", "drifting", "throttled", "disturbed", "impossible", "wrong"):
        assert text.count(f"- **{kind}**: {marks.MEANING[kind].partition('(')[0]}") == 1


def test_the_figures_of_the_markdown_exist(fine):
    bench, text, _ = fine
    for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (bench.root / "report" / target).is_file()


def test_the_same_records_give_the_same_text(fine):
    bench, text, page = fine
    assert rendered(bench, RUN) == (text, page)


@pytest.mark.parametrize("state", ["none", "failed", "stale", "some"])
def test_it_renders_from_any_state(tmp_path, state):
    bench = synthetic.bench(tmp_path, **(FEW_GRIDS if state == "some" else SMALL_GRIDS))
    if state != "none":
        synthetic.fill(bench)
    for name in bench.names if state in ("failed", "stale") else ():
        for cell in bench.grid(name):
            failed = {"status": "oom", "reason": "MemoryError: tried 9 GiB"}
            synthetic.write(bench, name, cell, **(failed if state == "failed" else {"fingerprint": {"source": {}}}))
    if state == "some":
        first, second, third, *_ = bench.grid("end_to_end")
        synthetic.write(bench, "end_to_end", first, status="timeout", reason="no result after 5 s")
        synthetic.write(bench, "end_to_end", second, fingerprint={"source": {}})
        (bench.root / bench.path(third)).write_text("{}")
    text, page = rendered(bench)
    Reader(page)
    expected = {
        "none": [
            "Nothing has been measured on it yet.",
            f"0 of {total(bench)} cells gave numbers.",
            "have not been measured yet",
        ],
        "failed": ["3 of 3 cells ran out of memory: MemoryError: tried 9 GiB.", "### Cells without numbers"],
        "stale": ["are stale and left out of every finding", "| stale |", f"0 of {total(bench)} cells gave numbers."],
        "some": [
            f"{total(bench) - 3} of {total(bench)} cells",
            "no result after 5 s",
            f"1 of {len(bench.grid('end_to_end'))} cells is stale",
            "has an unreadable record",
            "| timeout |",
        ],
    }[state]
    for words in expected:
        assert words in text
    assert "No run has measured anything" in text


def test_what_others_wrote_does_nothing(tmp_path):
    bench = synthetic.bench(tmp_path, **FEW_GRIDS)
    facts = synthetic.FACTS | {"device_name": NASTY, "cpu": NASTY, "os": NASTY, "torch": NASTY}
    _, second, *_ = bench.grid("end_to_end")
    for name in bench.names:
        for each in bench.grid(name):
            if each != second:
                values = synthetic.MEASURED[name](bench, each, synthetic.np.random.default_rng(0), 0.01)
                synthetic.write(bench, name, each, environment=facts, **values)
    synthetic.write(bench, "end_to_end", second, status="error", reason=NASTY, environment=facts)
    text, page = rendered(bench)
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(javascript", text)
    read = Reader(page)
    assert sum(tag == "script" and not values for tag, values in read.tags) == 1
    assert not any(link.startswith("javascript") for link in read.links)
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    # The row of the failed cell still has as many cells as its table's heading.
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) > 2 for line in rows)


def test_a_missing_number_is_an_error_and_never_an_empty_string(fine):
    bench, *_ = fine
    with pytest.raises(KeyError):
        writeup.write_up(States(bench), [], bench.root / "x.md", bench.root / "x.html", {"cells": 1})
    environment = templates.environment(synthetic.ROOT / "report" / "templates")
    with pytest.raises(jinja2.UndefinedError):
        environment.get_template("writeup.md.j2").render(title="t")
    for name in ("section.md.j2", "writeup.html.j2"):
        with pytest.raises(jinja2.UndefinedError):
            environment.get_template(name).render()


def test_a_write_up_reads_each_record_once_and_makes_no_finding_again(fine, monkeypatch):
    bench, *_ = fine
    read, whole = [], records.read
    monkeypatch.setattr(records, "read", lambda path: read.append(path) or whole(path))
    monkeypatch.setattr(experiments.Experiment, "find", property(lambda _: pytest.fail("it was found already")))
    monkeypatch.setattr(experiments.Experiment, "tabulate", lambda *_: pytest.fail("it was tabulated already"))
    target = bench.root / "again" / "w.md"
    writeup.write_up(States(bench), [*map(experiments.load, bench.names)], target, target.with_suffix(".html"))
    assert sorted(read) == sorted(bench.root / bench.path(cell) for cell in bench.cells)


def test_a_missing_table_is_an_error(tmp_path):
    bench = synthetic.bench(tmp_path, warmup=SMALL_GRIDS["warmup"])
    with pytest.raises(FileNotFoundError, match=r"warmup\.json"):
        writeup.write_up(States(bench), [experiments.load("warmup")], tmp_path / "a.md", tmp_path / "a.html")


def test_long_tables_fold_in_the_markdown(tmp_path):
    grid = {"ceilings": [{"operation": ["matmul"], "replicate": [0]}]}
    bench = synthetic.bench(tmp_path, **grid)
    (cell,) = bench.grid("ceilings")
    samples = {f"matmul_{extent}_s": [0.1] * 7 for extent in range(1, 60)}
    scalars = {f"matmul_{extent}_flops": 2 * extent**3 for extent in range(1, 60)}
    synthetic.write(bench, "ceilings", cell, samples=samples, scalars=scalars)
    text, page = rendered(bench)
    assert "<details><summary>Rate at each size: 59 rows</summary>\n\n###" in text
    assert page.count("<details>") == 1


def test_every_figure_has_a_caption_of_plain_text():
    folder = synthetic.ROOT / "report" / "captions"
    for name in experiments.names():
        declared = experiments.load(name).figure_names
        if not declared:
            continue
        found = writeup.captions(folder / f"{name}.rst")
        assert set(found) == set(declared)
        assert all(text.endswith(".") and "{" not in text and "`" not in text for text in found.values())


def test_numbers_in_captions_are_those_of_the_code():
    captions = writeup.captions(synthetic.ROOT / "report" / "captions" / "end_to_end.rst")
    assert f"{100 * statistics.INTERVAL_LEVEL:.0f} % intervals" in captions["phases"]
    assert f"{100 * statistics.RATIO_LEVEL:.0f} % interval" in captions["speedups"]
    assert f"grey band of {100 * statistics.SAME_WITHIN:.0f} %" in captions["speedups"]
    assert statistics.MIN_PROCESSES == 5
    assert "five processes a side" in captions["speedups"]


def test_the_thresholds_are_told(fine):
    _, text, _ = fine
    assert f"the standard deviation of the samples is above {100 * marks.NOISY_CV:.0f} % of their mean" in text
    assert f"fewer than {statistics.MIN_PROCESSES} processes a side" in text


def test_it_can_be_written_next_to_other_folders(fine, tmp_path):
    bench, *_ = fine
    target = bench.root / "elsewhere" / "deep" / "w.md"
    writeup.write_up(States(bench), [experiments.load("warmup")], target, target.with_suffix(".html"))
    (first, *_) = re.findall(r"\[json\]\(([^)]+)\)", target.read_text())
    assert Path(first).parts[:3] == ("..", "..", "results")
    assert (target.parent / first).is_file()
