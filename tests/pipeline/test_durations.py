"""Estimates for devices that have measured nothing, and the grids that fit into them."""

from pathlib import Path

import pytest

from stepbench.experiments.end_to_end import cell as end_to_end
from stepbench.measure import devices, software
from stepbench.measure.devices import Device, Found
from stepbench.pipeline import durations, inputs, planning
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.config import ConfigError

ROOT = Path(__file__).parents[2]
MACHINES = {
    "laptop": (Device("NVIDIA GeForce RTX 4060 Laptop GPU", memory_bytes=8 * 2**30, capability="8.9"), 1),
    "RTX 5090": (Device("NVIDIA GeForce RTX 5090", memory_bytes=32 * 2**30, capability="12.0"), 2),
    "H100": (Device("NVIDIA H100 80GB HBM3", memory_bytes=80 * 2**30, capability="9.0"), 1),
    "T4": (Device("Tesla T4", memory_bytes=15 * 2**30, capability="7.5"), 1),
    "unknown": (Device("NVIDIA of 2031", memory_bytes=2**40), 1),
}


def open_on(monkeypatch: pytest.MonkeyPatch, machine: str, scale: str = "auto") -> Bench:
    device, count = MACHINES[machine]
    monkeypatch.setattr(devices, "found", lambda: Found("cuda", "cuda", (device,) * count))
    return Bench.open(ROOT, settings={"scale": scale})


@pytest.mark.parametrize(("machine", "minutes"), [("laptop", 25), ("RTX 5090", 18), ("H100", 15), ("T4", 25)])
def test_the_quick_grid_is_what_auto_takes_and_is_a_matter_of_minutes(
    monkeypatch: pytest.MonkeyPatch, machine: str, minutes: float
) -> None:
    bench = open_on(monkeypatch, machine)
    assert bench.scale == "gpu_quick"
    assert set(bench.names) == set(bench.settings["experiments"]) - {
        name for name, grid in bench.settings["experiments"].items() if "gpu_quick" not in grid
    }
    assert sum(durations.of(bench, cell) or 0.0 for cell in bench.cells) < 60 * minutes


@pytest.mark.parametrize("machine", MACHINES)
def test_the_whole_grid_is_a_matter_of_hours_and_every_cell_has_an_estimate(
    monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    cells, seconds = planning.by_formula(open_on(monkeypatch, machine), "gpu")
    assert cells > 1000
    assert 5 < seconds / 3600 < 60
    bench = open_on(monkeypatch, machine, "gpu")
    estimates = [durations.of(bench, cell) for cell in bench.cells]
    assert all(each is not None and 0 < each <= bench.settings["limits"]["time_s"] for each in estimates)


def test_a_verdict_of_the_quick_grid_has_five_processes_a_side(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_on(monkeypatch, "H100")
    sides = [cell for cell in bench.grid("end_to_end") if cell.context == 256 and cell.size == "small"]
    kinds = {(cell.precision, cell.implementation, cell.attention) for cell in sides if cell.precision != "fp16"}
    assert {("fp32", "eager", "naive"), ("bf16", "eager", "naive"), ("bf16", "compiled", "naive")} <= kinds
    assert len(sides) == 5 * len(kinds) + 1


def test_a_cell_of_both_grids_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, whole = open_on(monkeypatch, "H100"), open_on(monkeypatch, "H100", "gpu")
    assert quick.protocol == whole.protocol


def test_what_does_not_fit_costs_a_prediction_and_a_missing_device_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_on(monkeypatch, "laptop")
    (xl,) = (cell for cell in bench.grid("end_to_end") if cell.size == "xl")
    assert durations.of(bench, xl) == durations.START_S + durations.PREDICTED_S
    assert {durations.of(bench, cell) for cell in bench.grid("collectives")} == {durations.START_S}


def test_a_cpu_has_no_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "found", Found)
    bench = Bench.open(ROOT)
    assert durations.of(bench, bench.cells[0]) is None


@pytest.mark.parametrize(("compiler", "header"), [(False, True), (True, False)])
def test_kernels_that_cannot_be_compiled_are_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: bool, header: bool
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(software.shutil, "which", lambda name: "/usr/bin/gcc" if compiler and name == "gcc" else None)
    monkeypatch.setattr(software.sysconfig, "get_path", lambda _: str(tmp_path))
    if header:
        (tmp_path / "Python.h").touch()
    bench = open_on(monkeypatch, "H100")
    lacking = "a C compiler" if header else r"Python\.h"
    with pytest.raises(ConfigError, match=rf"\d\d cells use Triton or torch\.compile, .* {lacking}.* install"):
        inputs.check(bench)
    assert inputs.lacks_compiler(bench, bench.grid("ceilings")) is None
    monkeypatch.setattr(devices, "found", Found)
    assert inputs.lacks_compiler(Bench.open(ROOT), bench.cells) is None


def test_a_model_beside_the_sizes_has_an_estimate_and_one_of_ones_own_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_on(monkeypatch, "H100", "gpu")
    small, large = (end_to_end.Cell(size, 128, batch=1, passes="forward") for size in ("gpt2", "llama-3.2-1b"))
    assert 0 < (durations.of(bench, small) or 0.0) < (durations.of(bench, large) or 0.0)
    own = Bench.open(ROOT, settings={"scale": "gpu", "models": {"mine": {"module": "mine.py:build"}}})
    assert durations.of(own, end_to_end.Cell("mine", 128)) is None
