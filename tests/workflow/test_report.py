"""The real experiments, and one that a reader of CONTRIBUTING adds, from nothing to the report, with the real torch."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.workflow.bench_copy import CONFIG, MACHINE, REPOSITORY, Copy

GRIDS = {
    "ceilings": {"cpu": [{"operation": ["copy"]}]},
    "end_to_end": {"cpu": [{"size": ["nano"], "context": [16], "batch": [1]}]},
    "warmup": {"cpu": [{"size": ["nano"], "warmup": [0]}]},
    "numerics": {"cpu": [{"case": ["accumulation", "autocast_bf16"]}]},
}


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Copy]:
    """The workflow as it is in the repository."""
    copy = Copy.make(tmp_path / "bench", toys=False)
    yield copy
    copy.close()


def diff_of_contributing() -> str:
    found = re.findall(r"^```diff\n(.*?)^```", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
    (diff,) = found
    return diff


def test_from_nothing_to_the_report_and_once_only(plain: Copy) -> None:
    touched = set(re.findall(r"^diff --git a/.* b/(.*)", diff_of_contributing(), re.MULTILINE))
    (name,) = {Path(path).parent.name for path in touched if path.startswith("src/")}
    parts = ("__init__", "cell", "measure", "tables", "figures", "findings")
    assert touched == {
        "Snakefile",
        "config.yaml",
        f"rules/{name}.smk",
        f"report/captions/{name}.rst",
        *(f"src/stepbench/experiments/{name}/{part}.py" for part in parts),
    }
    subprocess.run(["git", "apply", "-"], cwd=plain.root, input=diff_of_contributing(), text=True, check=True)
    added = yaml.safe_load((plain.root / "config.yaml").read_text())["experiments"][name]
    data = {"source": "corpus", "corpus_bytes": 20000}
    plain.configure({**CONFIG, "data": data, "experiments": {**GRIDS, name: added}})

    first = plain.snakemake()
    assert first.code == 0, first.err
    records = sorted((plain.root / "results" / MACHINE).glob("*/*~*.json"))
    assert {path.parent.name for path in records} == {*GRIDS, name}
    assert {state.partition(" ")[0] for state in plain.states().values()} == {"fresh"}
    text = (plain.root / "report/writeup.md").read_text()
    page = (plain.root / "report/writeup.html").read_text()
    for experiment in (*GRIDS, name):
        assert list((plain.root / "results" / MACHINE / "tables" / experiment).glob("*.csv"))
        assert list((plain.root / "results" / MACHINE / "figures" / experiment).glob("*.svg"))
    for link in re.findall(r"\]\((\.\./results/[^)#]+)\)", text):
        assert (plain.root / "report" / link).exists(), link
    assert "overhead" in text or "the pipeline around them cost" in text
    assert not re.search(r"""(src|href)=["']?https?://[^"']+\.(js|css|woff2?|png|svg)""", page)
    assert (plain.root / "report/failures.txt").read_text() == ""

    before = {path: path.stat().st_mtime_ns for path in plain.root.rglob("*") if "results" in path.parts}
    second = plain.snakemake()
    assert "Nothing to be done" in second.err
    assert before == {path: path.stat().st_mtime_ns for path in plain.root.rglob("*") if "results" in path.parts}
