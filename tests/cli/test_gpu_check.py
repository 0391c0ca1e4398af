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
    products = config.read(ROOT / "config.yaml")["experiments"]["attention"]["gpu"]
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
    assert (done.returncode, done.stderr) == (2, "stepbench: the GPU check needs a CUDA device, and there is none\n")


def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(gpu_check.NEEDED, "no_such_module", "no-such-package")
    assert gpu_check.main() == 2
    assert "missing packages: no-such-package;" in capsys.readouterr().err


def test_the_grid_holds_the_shapes_that_papers_show(cells: list[Any]) -> None:
    assert len(cells) == 4 * 6 * 2 * 2
    assert {(cell.head_dim, cell.heads) for cell in cells} == {(64, 32), (128, 16)}
    assert {cell.seq for cell in cells} == {512, 1024, 2048, 4096, 8192, 16384}
    assert {cell.dtype for cell in cells} == {"bf16"}


def test_what_the_bar_is_about_comes_first(cells: list[Any]) -> None:
    first = cells[:32]
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


def test_a_part_that_takes_too_long_ends_with_all_that_it_started(capsys: pytest.CaptureFixture[str]) -> None:
    sleeper = "import os, time; print(os.getpid(), flush=True)\nwhile True: time.sleep(0.1)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleeper!r}]); {sleeper}"
    found = gpu_check._run([sys.executable, "-c", code], limit_s=3.0)
    *pids, last = found["closing_lines"]
    assert last == "ended after 3 s"
    assert found["exit_code"] != 0
    assert len(pids) == 2
    assert gone([int(pid) for pid in pids], within_s=0)
    assert "ended after 3 s" in capsys.readouterr().out


def test_a_part_that_ends_is_told_with_its_exit_code() -> None:
    found = gpu_check._run([sys.executable, "-c", "print('said'); raise SystemExit(5)"], limit_s=60.0)
    assert (found["exit_code"], found["closing_lines"]) == (5, ["said"])
