"""The machine's peaks are measured again: nothing else is, and everything that shows a warning is rendered again."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.reporting import synthetic
from tests.workflow.bench_copy import CONFIG, Copy

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import config
from stepbench.pipeline.bench import Bench

pytestmark = pytest.mark.slow  # real runs, one after the other

GRIDS = {
    "ceilings": {"cpu": [{"operation": ["matmul"], "dtype": ["fp32"]}, {"operation": ["copy"]}]},
    "end_to_end": {"cpu": [{"size": ["nano"], "context": [64]}]},
    "attention": {"cpu": [{"implementation": ["naive"], "seq": [128], "head_dim": [64]}]},
}
RENDERED = ("tables", "figures", "findings")


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Copy]:
    """The workflow as it is in the repository, with plausible records of every cell."""
    copy = Copy.make(tmp_path / "bench", toys=False)
    sizes = synthetic.settings()["sizes"]
    copy.configure({**CONFIG, "experiments": GRIDS, "vocabulary": 10_000, "sizes": sizes})
    fill(copy)
    yield copy
    copy.close()


def bench_of(copy: Copy) -> Bench:
    return Bench(copy.settings, root=copy.root, schema=copy.root / config.SCHEMA)


def fill(copy: Copy, *names: str, seed: int = 0) -> None:
    synthetic.fill(bench_of(copy), *names, seed=seed, spread=0.02)


def rendered(copy: Copy) -> dict[str, tuple[int, bytes]]:
    """Return identity and content of each table, figure and list of findings."""
    machine = copy.root / "results/here"
    files = (path for kind in RENDERED for path in sorted((machine / kind).rglob("*.*")) if path.suffix != ".png")
    return {str(path.relative_to(machine)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_peaks_that_are_measured_again_have_all_that_shows_them_rendered_again(filled: Copy) -> None:
    records = sorted((filled.root / "results").glob("*/*/*~*.json"))
    assert filled.snakemake("report/writeup.md").code == 0
    before = rendered(filled)
    assert {name.split("/")[1].removesuffix(".json") for name in before} == {*GRIDS, "changes"}

    fill(filled, "ceilings", seed=7)  # as a measurement does
    done = filled.snakemake("report/writeup.md")
    assert done.code == 0, done.err
    assert "rule measure_" not in done.err
    after = rendered(filled)
    assert after.keys() == before.keys()
    reading = [name for name in GRIDS if "ceilings" in (name, *experiments.load(name).reads)]
    assert reading == list(GRIDS)
    assert [name for name in after if after[name][0] == before[name][0]] == []
    changed = {name for name in after if after[name][1] != before[name][1]}
    assert {"tables/ceilings/peaks.csv", "tables/end_to_end/by_size.csv"} <= changed  # MFU is over the peak
    assert not any(name.startswith("tables/attention/kernels") for name in changed)
    text = (filled.root / "report/writeup.md").read_text()

    quiet = filled.snakemake("-n", "report/writeup.md")
    assert "Nothing to be done" in quiet.err + quiet.out
    for folder in (*(f"results/here/{kind}" for kind in RENDERED), ".stepbench", ".snakemake"):
        shutil.rmtree(filled.root / folder)
    (filled.root / "report/writeup.md").unlink()
    assert filled.snakemake("report/writeup.md").code == 0
    assert {name: content for name, (_, content) in rendered(filled).items()} == {
        name: content for name, (_, content) in after.items()
    }
    assert (filled.root / "report/writeup.md").read_text() == text
    assert sorted((filled.root / "results").glob("*/*/*~*.json")) == records
