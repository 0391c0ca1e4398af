"""What `make gpu-check` does on a machine without a GPU, and in which order it would measure."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.processes import gone

from stepbench.cli import gpu_check
from stepbench.experiments.attention.cell import Cell as Attention
from stepbench.pipeline import config, grids
from stepbench.process import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cells() -> list[Any]:
    found = config.read(ROOT / "config.yaml")["experiments"]["attention"]
    products = [*found["gpu_quick"], *found["gpu"]]
    return gpu_check.in_order(grids.expand(Attention, products, where=("attention", "gpu")))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_ends_with_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stepbench.cli.gpu_check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    told = "`scale` must be auto or cpu on a machine without a GPU, got gpu_quick (cpu)"
    said = f"stepbench: the GPU check needs a GPU that can be measured: {told}\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(gpu_check.NEEDED, "no_such_module", "no-such-package")
    assert gpu_check.main() == 2
    assert "missing packages: no-such-package;" in capsys.readouterr().err


def test_the_grid_holds_the_shapes_that_papers_show(cells: list[Any]) -> None:
    board, papers = cells[:4], cells[4:]
    shapes = {(cell.seq, cell.heads, cell.head_dim, cell.batch, cell.causal) for cell in board}
    assert shapes == {(16384, 16, 64, 1, True)}
    assert len(papers) == 4 * 6 * 2 * 2
    assert {(cell.head_dim, cell.heads) for cell in papers} == {(64, 32), (128, 16)}
    assert {cell.seq for cell in cells} == {512, 1024, 2048, 4096, 8192, 16384}
    assert {cell.dtype for cell in cells} == {"bf16"}


def test_what_the_bar_is_about_comes_first(cells: list[Any]) -> None:
    first = cells[4:36]
    assert all(cell.causal and cell.seq >= 2048 for cell in first)
    assert {cell.implementation for cell in first[:4]} == {"triton", "sdpa_flash", "sdpa_cudnn", "flex"}
    assert len({(cell.seq, cell.head_dim) for cell in first[:4]}) == 1


def test_cells_beyond_the_time_are_left_and_fresh_ones_are_not_measured_again(
    cells: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    measured = []

    def measure_cell(_states: Any, cell: Any) -> Any:
        measured.append(cell)
        now[0] += 30.0
        return SimpleNamespace(status="ok", reason=None)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run, "measure_cell", measure_cell)
    states = SimpleNamespace(
        of=lambda cell: SimpleNamespace(kind="fresh" if cell is cells[0] else "missing"),
        bench=SimpleNamespace(path=lambda cell: Path(f"cell-{cells.index(cell)}.json")),
    )
    left = gpu_check.measure(states, cells[:5], deadline=75.0)
    assert measured == [cells[1], cells[2]]
    assert left == ["cell-3.json", "cell-4.json"]


def test_a_part_that_takes_too_long_ends_with_all_that_it_started() -> None:
    sleeper = "import os, time; print(os.getpid(), flush=True)\nwhile True: time.sleep(0.1)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleeper!r}]); {sleeper}"
    with pytest.raises(gpu_check.FailedPartError) as caught:
        gpu_check._command([sys.executable, "-c", code], limit_s=3.0)
    *pids, last = str(caught.value).splitlines()
    assert last == "ended after 3 s"
    assert len(pids) == 2
    assert gone([int(pid) for pid in pids], within_s=0)


def test_a_part_that_fails_does_so_by_itself_and_its_output_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    parts = gpu_check.Parts()
    code = "print('said'); raise SystemExit(5)"
    parts.run("first", lambda: gpu_check._command([sys.executable, "-c", code], limit_s=60.0))
    parts.run("second", lambda: str(1 / 0))
    parts.run("third", lambda: "fine")
    assert parts.failed == ["first", "second"]
    assert parts.results["first"]["output"] == ["said", "exit status 5"]
    assert parts.results["second"]["output"][-1] == "ZeroDivisionError: division by zero"
    assert parts.results["third"]["output"] == ["fine"]
    assert "said" in capsys.readouterr().out


def test_the_summary_holds_the_machine_the_parts_and_the_times_of_one_call(cells: list[Any]) -> None:
    host = SimpleNamespace(
        device_count=2, device_name="NVIDIA H200", driver="580.1", software={"torch": "2.13.0", "triton": "3.7.1"}
    )
    ok = SimpleNamespace(ok=True, samples={"forward_backward_s": [2e-3, 1e-3, 3e-3]})
    full = SimpleNamespace(ok=False, samples={}, status="oom", reason="CUDA out of memory")
    records = dict(zip(cells, [ok, full], strict=False))
    states = SimpleNamespace(
        bench=SimpleNamespace(host=host), of=lambda cell: SimpleNamespace(record=records.get(cell))
    )
    parts = gpu_check.Parts()
    parts.run("tests", lambda: str(1 / 0))
    lines = gpu_check.summary(states, cells, parts, ["a", "b"]).splitlines()
    assert lines == [
        "2 × NVIDIA H200, driver 580.1, torch 2.13.0, triton 3.7.1",
        "tests: FAILED in 0 s",
        "cells left for the next run: 2",
        f"{cells[0].implementation} 16384, 16 × 64, causal: forward + backward 2.000 ms",
        f"{cells[1].implementation} 16384, 16 × 64, causal: oom, CUDA out of memory",
    ]
