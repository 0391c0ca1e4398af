from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.test_bench import ROOT, SETTINGS, record, write

from stepbench.experiments.numerics.cell import Cell as Numerics
from stepbench.experiments.warmup.cell import Cell as Warmup
from stepbench.pipeline import config
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.progress import Progress
from stepbench.pipeline.state import States


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(SETTINGS, root=tmp_path, schema=ROOT / config.SCHEMA)


def begun(bench: Bench, capsys: pytest.CaptureFixture[str], name: str, cell: Any) -> str:
    Progress(States(bench), cell).begin()
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_the_first_of_all_knows_no_times(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    line = begun(bench, capsys, "warmup", Warmup("nano", 0))
    assert line == "[1/5] measuring warmup size~nano,warmup~0,replicate~0 (4 left)"


def test_the_rest_is_estimated_from_cells_like_it(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    write(bench, Warmup("nano", 0), duration_s=10.0)
    write(bench, Warmup("nano", 1), duration_s=20.0)
    line = begun(bench, capsys, "warmup", Warmup("nano", 0, 1))
    assert (
        line
        == "[3/5] measuring warmup size~nano,warmup~0,replicate~1 (2 left, about 15 s, without 1 of unknown duration)"
    )
    write(bench, Numerics("accumulation"), "numerics", duration_s=400.0, status="error", reason="why")
    line = begun(bench, capsys, "warmup", Warmup("nano", 0, 1))
    assert line == "[3/5] measuring warmup size~nano,warmup~0,replicate~1 (2 left, about 7 min)"


def test_the_last_one_says_so(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    for name in bench.names:
        for cell in bench.grid(name):
            write(bench, cell, name)
    assert begun(bench, capsys, "numerics", Numerics("accumulation")).endswith(" (the last one)")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "measured warmup size~nano,warmup~1,replicate~0: 1.0 s"),
        ({"status": "oom", "reason": "why"}, "measured warmup size~nano,warmup~1,replicate~0: oom: why"),
    ],
)
def test_the_end_says_how_it_went(
    bench: Bench, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    cell = Warmup("nano", 1)
    told = Progress(States(bench), cell)
    told.begin()
    told.end(record(bench, cell, **changes))
    assert capsys.readouterr().err.splitlines()[1].strip() == said


def test_a_run_counts_its_own_cells_and_not_those_of_the_grid(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Two were asked for: one that is fresh (`--force`), and one of another size that no grid contains."""
    asked = [Warmup("nano", 0), Warmup("nano", 7)]
    write(bench, asked[0], duration_s=10.0)
    note = [str(bench.path(cell)) for cell in asked]
    for cell, told in zip(asked, ("[1/2] … (1 left, about 10 s)", "[2/2] … (the last one)"), strict=True):
        progress = Progress(States(bench), cell, "today", note)
        progress.begin()
        progress.end(record(bench, cell, duration_s=10.0))
        begin, _ = told.split("…")
        line = capsys.readouterr().err.splitlines()[0]
        assert line == f"{begin}measuring warmup {cell.name}{told.split('…')[1]}"


def test_a_run_looks_at_all_records_once(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Warmup("nano", 0), Warmup("nano", 1)
    told = Progress(States(bench), first, run="today")
    told.begin()
    told.end(record(bench, first, duration_s=30.0))
    monkeypatch.setattr(States, "of", None)
    Progress(States(bench), second, run="today").begin()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("[2/5] measuring warmup size~nano,warmup~1,replicate~0 (3 left, about 60 s")
    with pytest.raises(TypeError):
        Progress(States(bench), second, run="tomorrow").begin()
