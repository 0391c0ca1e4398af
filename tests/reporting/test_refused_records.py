"""Records that cannot be believed or are not asked for: no table, figure or sentence shows them, and they are named."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from tests.reporting import synthetic
from tests.reporting.test_writeup import rendered

from stepbench.measure import environment
from stepbench.pipeline import records

GRID = {"end_to_end": [{"size": ["nano"], "context": [64, 128], "passes": ["forward"]}]}
BAD_S = 7.7777777


@pytest.fixture
def bench(tmp_path):
    """A bench with two cells; both have been measured."""
    bench = synthetic.bench(tmp_path, **GRID)
    synthetic.fill(bench)
    return bench


def told(bench):
    """Return the first cell's row of the table, all texts of tables and report, and the cell's line in the report."""
    text, page = rendered(bench)
    machine = bench.root / "results" / bench.machine
    table = (machine / "tables/end_to_end/every_cell.csv").read_text()
    files = [path.read_text() for kind in ("csv", "md") for path in machine.rglob(f"*.{kind}")]
    (row,) = (line for line in table.splitlines() if "context~64," in line)
    (line,) = (line for line in plain(text).splitlines() if line.startswith("| size~nano, context~64, "))
    return row, plain("\n".join([text, *files]) + re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)), line


def drawn(bench):
    """Return the figures as they are now, byte by byte; coordinates may hold any digits."""
    return {path.name: path.read_bytes() for path in (bench.root / "results" / bench.machine).rglob("*.svg")}


def plain(markdown):
    """Return Markdown without its escapes."""
    return markdown.replace("\\", "").replace("\xa0", " ")


def bad(bench):
    """Return the path of the first cell's record, in which a time stands that would be recognised anywhere."""
    cell, _ = bench.grid("end_to_end")
    fields = synthetic.decoder_step(bench, cell, synthetic.np.random.default_rng(0), 0.01)
    fields["samples"]["step_s"] = fields["samples"]["forward_s"] = [BAD_S] * 7
    synthetic.write(bench, "end_to_end", cell, **fields)
    return bench.root / bench.path(cell)


def sealed(path, **changes):
    content = json.loads(path.read_text())
    content.pop("checksum")
    content |= changes
    path.write_text(json.dumps({**content, "checksum": records.checksum(content)}))


def with_text(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new))


DEFECTS = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not valid JSON"),
    "empty": (lambda path: path.write_bytes(b""), "not valid JSON"),
    "wrong type": (lambda path: sealed(path, samples={"step_s": "fast"}), "`samples.step_s` must be a list of numbers"),
    "NaN": (with_text(str(BAD_S), "NaN"), "NaN is not a number that JSON allows"),
    "infinite": (with_text(str(BAD_S), "1e999"), "1e999 is larger than a float can hold"),
    "duplicate key": (with_text('"status": "ok"', '"status": "ok", "status": "ok"'), "duplicate key `status`"),
    "negative time": (
        lambda path: sealed(path, samples={"step_s": [-0.25]}),
        "`samples.step_s` must be finite and not",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defective_record_is_named_and_the_others_are_rendered(bench, defect):
    change, reason = DEFECTS[defect]
    path = bad(bench)
    change(path)
    row, everything, line = told(bench)
    assert "unreadable" in row
    assert str(BAD_S)[:4] not in everything
    assert reason in line
    assert path.name in line
    assert "1 of 2 cells gave numbers." in everything


def test_a_record_that_was_edited_by_hand_is_refused_and_named(bench):
    path = bad(bench)
    with_text(str(BAD_S), "7.7123")(path)
    row, everything, line = told(bench)
    assert "unreadable" in row
    assert "7.71" not in everything
    figures = drawn(bench)
    with_text("7.7123", "0.0123")(path)
    told(bench)
    assert drawn(bench) == figures
    assert "checksum mismatch" in line


def test_a_record_from_another_machines_folder_is_refused_and_named(bench, monkeypatch):
    """Named like this machine's own cell, whole, and measured elsewhere."""
    here = bad(bench)
    monkeypatch.setattr(environment, "_cpu_model", lambda: "Another CPU")
    there = synthetic.bench(bench.root / "elsewhere", **GRID)
    shutil.copy(bad(there), here)
    monkeypatch.undo()
    row, everything, line = told(bench)
    assert "stale" in row
    assert str(BAD_S)[:4] not in everything
    assert "machine: device_name was 'Another CPU', is " in line


def test_a_cell_that_left_the_grid_is_in_no_table_figure_or_sentence(bench):
    path = bad(bench)
    smaller = synthetic.bench(bench.root, end_to_end=[GRID["end_to_end"][0] | {"context": [128]}])
    text, page = rendered(smaller)
    tables = [file.read_text() for kind in ("csv", "md") for file in (bench.root / "results").rglob(f"*.{kind}")]
    for each in (text, page, *tables):
        assert "7.78 s" not in plain(each)
        assert "context~64" not in plain(each)
    assert "1 of 1 cell gave numbers." in plain(text)
    figures = drawn(smaller)
    path.unlink()
    assert rendered(smaller) == (text, page)
    assert drawn(smaller) == figures
