from __future__ import annotations

import re

import pandas as pd
from tests.reporting.conftest import results

from stepbench.reporting import tables
from stepbench.reporting.tables import Column, Table

PATH = "results/m/warmup/size~nano,warmup~0,replicate~0.json"


def table(rows, **fields):
    return Table("name", "A title", "A caption.", tables.frame(rows), **fields)


def test_a_table_is_written_raw_and_readable(tmp_path):
    rows = [{"size": "nano", "step_s": 0.0123456789, "records": {"": [PATH]}}]
    columns = [tables.value("size", numeric=False), Column("step (ms)", lambda row: f"{1e3 * row['step_s']:.1f}")]
    tables.write([table(rows, columns=columns)], tmp_path)
    raw = pd.read_csv(tmp_path / "name.csv")
    assert raw.to_dict("records") == [{"size": "nano", "step_s": 0.0123456789, "records": PATH}]
    assert (tmp_path / "name.md").read_text() == (
        "### A title\n\nA caption.\n\n"
        "| size | step (ms) | records |\n| :--- | ---: | :--- |\n"
        "| nano | 12.3 | [json](../../warmup/size~nano,warmup~0,replicate~0.json) |\n"
    )


def test_links_lead_to_files_that_exist(full, tmp_path):
    from stepbench.experiments import experiment as experiments

    for name in full.names:
        folder = full.root / "results" / full.machine / "tables" / name
        written = experiments.load(name).tabulate(results(full, name))
        tables.write(written, folder)
        assert tuple(each.name for each in written) == experiments.load(name).table_names
        for each in written:
            text = (folder / f"{each.name}.md").read_text()
            lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
            assert len(lines) == len(each.frame)
            if tables.RECORDS not in each.frame:  # what ships with the project, and was not measured here
                continue
            for line in lines:
                targets = re.findall(r"\]\(([^)]+)\)", line)
                assert targets
                assert all((folder / target).is_file() for target in targets)


def test_a_table_without_rows_is_a_sentence(tmp_path):
    tables.write([table([], empty="There is nothing.")], tmp_path)
    assert (tmp_path / "name.md").read_text() == "### A title\n\nThere is nothing.\n"
    assert (tmp_path / "name.csv").exists()


def test_droppable_columns_go_when_nothing_is_in_them():
    rows = [{"marks": ""}, {"marks": ""}]
    assert "marks" not in tables.markdown(table(rows, columns=[tables.MARKS]))
    assert "noisy" in tables.markdown(table([*rows, {"marks": "noisy"}], columns=[tables.MARKS]))


def test_a_status_has_its_reason_and_neither_does_harm():
    row = {"status": "error", "reason": "<script> | `rm`\nnext"}
    text = tables.markdown(table([row], columns=[tables.STATUS]))
    assert r"error: &lt;script&gt; \| \`rm\` next" in text
    assert len(text.strip().splitlines()) == 7


def test_a_table_without_columns_shows_its_frame():
    assert "| size | n |" in tables.markdown(table([{"size": "a_b", "n": 1}]))


def test_equal_axes_go_to_the_caption_and_differing_ones_to_columns():
    rows = [{"size": "nano", "context": 64}, {"size": "nano", "context": 128}]
    assert [column.heading for column in tables.axis_columns(rows, ["size", "context"])] == ["context"]
    assert tables.held_constant(rows, ["size", "context"]) == "Held constant: size nano."
    assert tables.held_constant([], ["size"]) == ""
