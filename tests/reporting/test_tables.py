from __future__ import annotations

import csv
import json
import math
import re

from tests.reporting.conftest import markdown, results

from stepbench.experiments import experiment as experiments
from stepbench.reporting import columns, tables
from stepbench.reporting.columns import Column, value, word
from stepbench.reporting.marks import Mark
from stepbench.reporting.tables import Table

TABLES = "results/m/tables/warmup"
PATH = "results/m/warmup/size~nano,warmup~0,replicate~0.json"


def table(rows, **fields):
    return Table("A title", "A caption.", rows, **fields)


def write(found, tmp_path):
    """Write a table and return its three files: the raw numbers, the Markdown and the JSON."""
    tables.write({"name": found}, tmp_path, TABLES)
    return tuple(tmp_path / TABLES / f"name.{kind}" for kind in ("csv", "md", "json"))


def test_a_table_is_written_raw_and_readable(tmp_path):
    rows = [{"size": "nano", "step_s": 0.0123456789, "records": {"": [PATH]}}]
    columns = [word("size"), Column("step", lambda row: f"{1e3 * row['step_s']:.1f}", "ms")]
    raw, readable, _ = write(table(rows, columns=columns), tmp_path)
    assert list(csv.DictReader(raw.open())) == [{"size": "nano", "step_s": "0.0123456789", "records": PATH}]
    assert readable.read_text() == (
        "### A title\n\nA caption.\n\n"
        "| size | step (ms) | records |\n| :--- | ---: | :--- |\n"
        "| nano | 12.3 | [json](../../warmup/size~nano,warmup~0,replicate~0.json) |\n"
    )


def test_the_json_holds_values_texts_warnings_and_records(tmp_path):
    warnings = columns.warned([Mark("noisy", "CV 12 %", "step")])
    rows = [{"size": "nano", "step_s": math.nan, **warnings, "records": {"": [PATH]}}]
    shown = table(rows, columns=[word("size"), Column("step", lambda _: "–", "ms"), columns.WARNINGS], held=["size"])
    _, readable, file = write(shown, tmp_path)
    found = json.loads(file.read_text())
    assert found["title"] == "A title"
    assert found["caption"] == "A caption. Held constant: size nano."
    assert found["columns"] == [
        {"heading": "size", "unit": "", "kind": "text", "secondary": False},
        {"heading": "step", "unit": "ms", "kind": "number", "secondary": False},
        {"heading": "quality: warnings", "unit": "", "kind": "text", "secondary": False},
    ]
    assert found["rows"] == [
        {
            "values": {"size": "nano", "step_s": None, "quality": "B"},
            "texts": ["nano", "–", "B: noisy (step CV 12 %)"],
            "warnings": [{"kind": "noisy", "detail": "CV 12 %", "of": "step"}],
            "records": {"": [PATH]},
            "keys": [None, None, None],
        }
    ]
    # Whatever shows the table later says what its own file says.
    assert tables.markdown(tables.read(file), TABLES) == readable.read_text()
    assert "Warnings: noisy: " in readable.read_text()


def test_what_all_rows_share_is_said_once_above_them(tmp_path):
    rows = [{"size": size, "step_s": step, "dtype": "fp32", "peak": None} for size, step in (("a", 1.5), ("b", 2.5))]
    columns = [word("size"), value("step_s", "step", str), word("dtype"), word("peak")]
    _, readable, file = write(table(rows, columns=columns), tmp_path)
    told = "A caption. In every row: dtype fp32. Without a value in any row: peak."
    assert readable.read_text().startswith(f"### A title\n\n{told}\n\n| size | step |\n")
    assert tables.read(file).shared == [("dtype", "fp32"), ("peak", "–")]
    assert "| a | 1.5 | fp32 | – |" in markdown(table(rows[:1], columns=columns))


def test_a_column_is_sorted_by_the_first_number_that_its_text_is_made_from():
    rows = [{"name": "x", "median_s": 2e-3, "low_s": None, "peak_bytes": 2**30, "is_on": True}] * 2
    rows[1] = rows[0] | {"name": "y", "median_s": 11e-3, "peak_bytes": 2**20, "is_on": False}
    columns = [
        Column("both", lambda row: f"{row['name']} {row['median_s']} {row['peak_bytes']}"),
        Column("peak", lambda row: f"{row.get('peak_bytes')} B"),
        value("is_on"),
        Column("nothing", lambda row: "–" if row["median_s"] < 5e-3 else "y"),
    ]
    shown = tables.show(table(rows, columns=columns))
    assert [row.keys for row in shown.rows] == [[2e-3, 2**30, None, None], [11e-3, 2**20, None, 11e-3]]


def test_links_begin_where_the_text_lies():
    rows = [{"size": "nano", "records": {"": [PATH]}}]
    assert f"[json](../{PATH})" in tables.markdown(table(rows), "report")
    assert "#### A title" in tables.markdown(table(rows), "report", level=4)


def test_links_lead_to_files_that_exist(full):
    for name in full.names:
        experiment = experiments.load(name)
        written, folder = experiment.tabulate(results(full, name)), f"results/{full.machine}/tables/{name}"
        tables.write(written, full.root, folder)
        assert tuple(written) == experiment.table_names
        for each, found in written.items():
            text = (full.root / folder / f"{each}.md").read_text()
            lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
            assert len(lines) == len(found.rows)
            for line, row in zip(lines, found.rows, strict=True):
                if not any(row.get("records", {}).values()):  # what ships with the project
                    continue
                targets = re.findall(r"\]\(([^)]+)\)", line)
                assert targets
                assert all((full.root / folder / target).is_file() for target in targets)


def test_a_table_without_rows_is_a_sentence(tmp_path):
    raw, readable, file = write(table([], empty="There is nothing."), tmp_path)
    assert readable.read_text() == "### A title\n\nThere is nothing.\n"
    assert raw.exists()
    assert tables.markdown(tables.read(file), TABLES) == readable.read_text()


def test_droppable_columns_go_when_nothing_is_in_them():
    rows = [columns.warned([]), columns.warned([])]
    assert "warnings" not in markdown(table(rows, columns=[columns.WARNINGS]))
    noisy = [*rows, columns.warned([Mark("noisy")])]
    assert "| B: noisy |" in markdown(table(noisy, columns=[columns.WARNINGS]))


def test_a_status_has_its_reason_and_neither_does_harm():
    row = {"status": "error", "reason": "<script> | `rm`\nnext"}
    text = markdown(table([row], columns=[columns.STATUS]))
    assert r"error: &lt;script&gt; \| \`rm\` next" in text
    assert len(text.strip().splitlines()) == 7


def test_a_table_without_columns_shows_its_frame():
    assert "| size | n |" in markdown(table([{"size": "a_b", "n": 1}]))


def test_equal_axes_go_to_the_caption_and_differing_ones_to_columns():
    rows = [{"size": "nano", "context": 64}, {"size": "nano", "context": 128}]
    assert [column.heading for column in columns.axis_columns(rows, ["size", "context"])] == ["context"]
    assert columns.held_constant(rows, ["size", "context"]) == "Held constant: size nano."
    assert columns.held_constant([], ["size"]) == ""
