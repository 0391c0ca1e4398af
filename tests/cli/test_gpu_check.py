"""What `make gpu-check` does on a machine without a GPU, and in which order it would measure."""

import json
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
from stepbench.measure import devices
from stepbench.pipeline import config, grids
from stepbench.process import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cells() -> list[Any]:
    found = config.read(ROOT / "config.yaml")["experiments"]["attention"]
    products = [*found["gpu_first"], *found["gpu_quick"], *found["gpu"]]
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

    def measure_cell(_states: Any, cell: Any, *, limit_s: float) -> Any:
        measured.append(cell)
        now[0] += min(30.0 if len(measured) < 3 else 60.0, limit_s)
        return SimpleNamespace(status="ok" if len(measured) < 3 else "timeout", reason=None)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run, "measure_cell", measure_cell)
    states = SimpleNamespace(
        of=lambda cell: SimpleNamespace(kind="fresh" if cell is cells[0] else "missing"),
        bench=SimpleNamespace(path=lambda cell: Path(f"cell-{cells.index(cell)}.json")),
    )
    left = gpu_check.measure(states, cells[:6], deadline=100.0)
    assert measured == [cells[1], cells[2], cells[3]]
    assert left == ["cell-3.json", "cell-4.json", "cell-5.json"]
    assert now[0] == 100.0  # the one that hangs is ended


def test_a_part_that_takes_too_long_ends_with_all_that_it_started() -> None:
    sleeper = "import os, time; print(os.getpid(), flush=True)\nwhile True: time.sleep(0.1)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleeper!r}]); {sleeper}"
    with pytest.raises(gpu_check.FailedPartError) as caught:
        gpu_check._command([sys.executable, "-c", code], limit_s=3.0)
    *lines, last = str(caught.value).splitlines()
    assert last == "ended after 3 s"
    pids = [line for line in lines if line.isdecimal()]
    assert len(pids) == 2
    assert gone([int(pid) for pid in pids], within_s=0)


def test_a_part_that_takes_too_long_can_say_what_has_failed_so_far(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import time\ndef test_wrong():\n    assert 1 + 1 == 3\ndef test_slow():\n    time.sleep(60)\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    with pytest.raises(gpu_check.FailedPartError) as caught:
        gpu_check._command(command, limit_s=8.0)
    assert "assert (1 + 1) == 3" in str(caught.value)
    assert str(caught.value).endswith("ended after 8 s")


def test_a_part_runs_with_the_environment_of_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    code = "import os; print(os.environ['CUDA_DEVICE_ORDER'], 'TORCHDYNAMO_DISABLE' in os.environ)"
    assert gpu_check._command([sys.executable, "-c", code], limit_s=60.0) == "PCI_BUS_ID False\n"


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


TIMED = {
    "head_dim": 64, "dtype": "bfloat16", "causal": True, "context": 2048, "tokens": 16_384, "width": 2048,
    "seconds": 2e-3, "predicted_s": 1e-3,
}  # fmt: skip


def pretend_timings(monkeypatch: pytest.MonkeyPatch, *, text: str, fails: bool) -> list[list[str]]:
    """Let the process that times kernels write `text`, and fail or not; return what it was called with."""
    asked = []

    def command(words: list[str], limit_s: float) -> str:
        asked.append(words)
        assert limit_s == gpu_check.KERNELS_S
        Path(words[words.index("--measure") + 1]).write_text(text)
        if fails:
            raise gpu_check.FailedPartError("ended after 75 s")
        return "said"

    monkeypatch.setattr(gpu_check, "_command", command)
    return asked


def test_times_of_kernels_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"architecture": "sm_90"}, {"kernel": "forward", **TIMED}, {"kernel": "backward_keys", **TIMED}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    asked = pretend_timings(monkeypatch, text=text, fails=False)
    found: dict[str, Any] = {}
    assert gpu_check._kernels(found) == "said"
    assert found == {"on": lines[0], "timed": lines[1:]}
    assert asked[0][1:4] == ["-m", "stepbench", "kernels"]
    assert float(asked[0][-1]) == gpu_check.KERNELS_S - gpu_check.END_S


def test_times_of_kernels_are_kept_when_their_process_is_killed_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"architecture": "sm_90"}, {"kernel": "forward", **TIMED}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"kernel": "backw'
    pretend_timings(monkeypatch, text=text, fails=True)
    parts, found = gpu_check.Parts(), dict[str, Any]()
    parts.run("kernels", lambda: gpu_check._kernels(found))
    assert parts.failed == ["kernels"]
    assert found == {"on": lines[0], "timed": lines[1:]}
    pretend_timings(monkeypatch, text="", fails=True)
    parts.run("kernels", lambda: gpu_check._kernels(found))
    assert found == {"on": None, "timed": []}


@pytest.mark.parametrize(("device", "dtype"), [("9.0", "bfloat16"), ("7.5", "float16")])
@pytest.mark.parametrize("measured_on", ["NVIDIA H200", "another GPU", None])
def test_the_tile_shapes_of_this_gpu_are_kept_after_they_were_searched(
    device: str, dtype: str, measured_on: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from stepbench.kernels.triton import tiles

    name = f"sm_{device.replace('.', '')}"
    head = {"dtype": dtype, **({"seconds": {}} if measured_on else {})}
    rows = [{**head, "head_dim": head_dim, "causal": causal} for head_dim in (64, 128) for causal in (True, False)]
    table = {name: {"machine": measured_on, "rows": rows}}
    here = devices.Found("cuda", "cuda", (devices.Device("NVIDIA H200", capability=device),))
    monkeypatch.setattr(devices, "found", lambda: here)
    asked: list[list[str]] = []

    def read_table() -> dict[str, Any]:
        return table

    def command(words: list[str], limit_s: float) -> str:
        asked.append(words)
        table[name] = {"machine": "NVIDIA H200", "rows": ["new"]}
        raise gpu_check.FailedPartError("ended after 120 s")

    read_table.cache_clear = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr(tiles, "read_table", read_table)
    monkeypatch.setattr(gpu_check, "_command", command)
    parts, found = gpu_check.Parts(), dict[str, Any]()
    parts.run("tuning", lambda: gpu_check._tune(found))
    if measured_on == "NVIDIA H200":
        assert (parts.failed, asked, found["rows"]) == ([], [], rows)
    else:
        assert parts.failed == ["tuning"]
        assert asked == [[sys.executable, "-m", "stepbench", "tune", "--seconds", "105.0"]]
        assert found == {"machine": "NVIDIA H200", "rows": ["new"]}


def test_the_parts_leave_time_for_the_grid() -> None:
    limits = gpu_check.TEST_S + gpu_check.TUNE_S + gpu_check.KERNELS_S + gpu_check.ATTENTION_S
    assert limits + 30 <= gpu_check.BUDGET_S <= 9 * 60


def test_the_summary_shows_predicted_beside_measured(cells: list[Any]) -> None:
    pytest.importorskip("triton")
    host = SimpleNamespace(device_count=1, device_name="H200", driver="1", software={"torch": "2", "triton": "3"})
    states = SimpleNamespace(bench=SimpleNamespace(host=host), of=lambda cell: SimpleNamespace(record=None))
    timed = [
        {"kernel": "forward", "tile": [128, 64, 8, 3], **TIMED},
        {"implementation": "triton", "pass": "forward", **TIMED},
        {"implementation": "sdpa_cudnn", "pass": "backward", **TIMED, "predicted_s": None},
    ]
    lines = gpu_check.summary(states, cells, gpu_check.Parts(), [], timed).splitlines()
    assert lines[2:] == [
        "triton forward at 2048, 32 × 64, causal: 2.000 ms, 1.000 ms predicted (-50%)",
        "sdpa_cudnn backward at 2048, 32 × 64, causal: 2.000 ms",
    ]


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
