"""What real runs leave in the history, and what `stepbench changes` makes of it."""

import json
from pathlib import Path

import pytest
from tests.workflow.bench_copy import Copy

pytestmark = pytest.mark.slow  # real runs, one after the other

TOYS = ("toy/fine,nano,0", "toy/fine,micro,0")
KERNEL = "src/stepbench/models/toy_kernel.py"


def kept(copy: Copy) -> dict[str, list[float]]:
    """Return the samples of each record in the history, by experiment and cell."""
    found: dict[str, list[float]] = {}
    for path in sorted(copy.root.glob("results/here/history/*/*/*.json")):
        found[f"{path.parts[-3]}/{path.parts[-2]}"] = json.loads(path.read_text())["samples"]["step_s"]
    return found


def changes(copy: Copy, *words: str) -> tuple[int, str]:
    done = copy.python("-m", "stepbench", "changes", *words)
    return done.code, done.out


def test_an_upgrade_and_then_a_kernel_leave_their_records_and_are_named(measured: Copy) -> None:
    version = measured.stubs / "torch/version.py"
    version.write_text(version.read_text().replace("2.13.0", "2.14.0"))
    assert measured.measure().code == 0
    assert kept(measured) == {
        "plain/label~a": [1.0],
        "toy/behaviour~fine,size~micro,replicate~0": [0.25, 0.5],
        "toy/behaviour~fine,size~nano,replicate~0": [0.25, 0.5],
    }
    code, out = changes(measured)
    assert code == 0
    assert "torch 2.13.0 → 2.14.0" in out
    measured.edit(KERNEL, "FACTOR = 1", "FACTOR = 2")
    with measured.measuring(*TOYS):
        assert measured.snakemake("toy", "report/changes.md").code == 0
    assert len(list(measured.root.glob("results/here/history/toy/*/*.json"))) == 4
    text = (measured.root / "report/changes.md").read_text()
    assert "## module models/toy_kernel" in text
    assert "ratio 0.500×" in text
    assert "## torch 2.13.0 → 2.14.0" in text  # of the experiment that does not use the kernel
    code, out = changes(measured, "--since", "2.13")
    assert "torch 2.13.0 → 2.14.0; module models/toy_kernel" in out
    done = measured.python("-m", "stepbench", "history", str(measured.path(TOYS[0]).relative_to(measured.root)))
    lines = [line.strip("│").split("│")[-1].strip() for line in done.out.splitlines() if line.startswith("│")]
    assert lines == [
        "software: torch was '2.13.0', is '2.14.0'",
        "source: stepbench.models.toy_kernel changed",
        "stands",
    ]


def test_another_layout_of_a_table_leaves_nothing_in_the_history(measured: Copy) -> None:
    measured.edit("src/stepbench/experiments/toy/tables.py", '"Nothing is held constant."', '"All is the same."')
    with measured.measuring():
        assert measured.snakemake("toy").code == 0
    assert "All is the same." in Path(measured.root, "results/here/tables/toy/toy.md").read_text()
    assert kept(measured) == {}
    assert changes(measured)[1] == ""


def test_measuring_again_says_which_of_two_is_kept(measured: Copy) -> None:
    """Beside other work the second measurement is a disturbed one, which does not replace a better one by itself."""
    history = measured.root / "results/here/history/toy"
    before = measured.record(TOYS[0])["started"]
    done = measured.python("-m", "stepbench", "measure", "toy", "behaviour=fine")
    assert done.code == 0, done.err
    assert "a fresh record of quality " in done.out
    assert ("it takes its place" in done.out) == (measured.record(TOYS[0])["started"] > before)
    assert len(list(history.glob("*/*.json"))) == 1
    now = measured.record(TOYS[0])["started"]
    done = measured.python("-m", "stepbench", "measure", "toy", "behaviour=fine", "--replace")
    assert "it takes its place, and the old record is in the history" in done.out
    assert measured.record(TOYS[0])["started"] > now
    assert len(list(history.glob("*/*.json"))) == 2
