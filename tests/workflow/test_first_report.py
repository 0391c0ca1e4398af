"""A first report after the cells that matter most, and the whole one after all of them."""

from pathlib import Path

import pytest
from tests.workflow.bench_copy import Copy

GRIDS = {
    "toy": {
        "gpu_first": [{"behaviour": ["raises"]}, {"behaviour": ["fine"], "replicate": [0, 1]}],
        "cpu": [{"behaviour": ["fine"], "size": ["nano", "micro"], "replicate": [0, 1, 2]}],
    },
    "plain": {"cpu": [{"label": ["a"]}]},
}
FIRST = ("toy/raises,nano,0", "toy/fine,nano,0", "toy/fine,nano,1")
REST = ("toy/fine,nano,2", "toy/fine,micro,0", "toy/fine,micro,1", "toy/fine,micro,2", "plain/a")


@pytest.fixture
def begun(fresh: Copy) -> Copy:
    """A copy whose scale begins with the cells of a first report, as gpu_quick does where there is a GPU."""
    fresh.edit("src/stepbench/pipeline/grids.py", 'FIRST = {"gpu_quick":', 'FIRST = {"cpu":')
    fresh.set("experiments", GRIDS)
    return fresh


def text_of(path: Path) -> str:
    return path.read_text().replace("\xa0", " ")


def rows(copy: Copy) -> int:
    return len((copy.root / "results/here/tables/toy/toy.csv").read_text().splitlines()) - 1


def test_a_first_report_comes_before_the_rest_is_measured_and_says_what_is_missing(begun: Copy) -> None:
    with begun.measuring(*FIRST):
        assert begun.snakemake("first_report").code == 0  # a failed cell costs no report
    report = begun.root / "report"
    for kind in ("md", "html"):
        text = text_of(report / f"first.{kind}")
        assert "A first report, with 2 of 8 cells. Missing: toy 5, plain 1; about " in text
        assert "There are 2 toys." in text
        assert "this toy is broken" in text
    assert "explore.html" not in text
    assert not (report / "writeup.md").exists()
    assert rows(begun) == 2

    with begun.measuring(FIRST[0], *REST):  # what has failed is tried again
        assert begun.snakemake().code == 1  # for the cell that has failed
    text = text_of(report / "writeup.md")
    assert "A first report" not in text + text_of(report / "writeup.html")
    assert "There are 6 toys." in text
    assert rows(begun) == 6


def test_where_no_cell_comes_first_or_none_is_missing_there_is_none(begun: Copy) -> None:
    begun.set("experiments.toy", {"cpu": [{"behaviour": ["fine"]}]})
    with begun.measuring():
        assert begun.snakemake("first_report").code == 0
    assert begun.snakemake().code == 0
    begun.set("experiments.toy", {"gpu_first": [{"behaviour": ["fine"]}]})
    with begun.measuring():
        assert begun.snakemake("first_report").code == 0
    assert not (begun.root / "report/first.md").exists()
