"""Estimates for devices that have measured nothing, and the grids that fit into them."""

import dataclasses
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from stepbench.comparison.machines import PUBLISHED
from stepbench.experiments.attention import cell as attention
from stepbench.experiments.ceilings import measure as ceilings
from stepbench.experiments.collectives import cell as collectives
from stepbench.experiments.end_to_end import cell as end_to_end
from stepbench.measure import devices, software
from stepbench.measure.devices import Device, Found
from stepbench.models import costs
from stepbench.pipeline import durations, inputs, planning
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.config import ConfigError
from stepbench.workloads import attention_check

ROOT = Path(__file__).parents[2]
DRAWN_S = 60.0  # a report's tables and figures, on a slow host
MACHINES = {
    "laptop": (Device("NVIDIA GeForce RTX 4060 Laptop GPU", memory_bytes=8 * 2**30, capability="8.9"), 1),
    "RTX 5090": (Device("NVIDIA GeForce RTX 5090", memory_bytes=32 * 2**30, capability="12.0"), 2),
    "H100": (Device("NVIDIA H100 80GB HBM3", memory_bytes=80 * 2**30, capability="9.0"), 1),
    "T4": (Device("Tesla T4", memory_bytes=15 * 2**30, capability="7.5"), 1),
    "4 GB laptop": (Device("NVIDIA GeForce RTX 3050 Laptop GPU", memory_bytes=4 * 2**30, capability="8.6"), 1),
    "GB10": (Device("NVIDIA GB10", memory_bytes=120 * 2**30, capability="12.1"), 1),
    "unknown": (Device("NVIDIA of 2031", memory_bytes=2**40), 1),
}


def open_on(monkeypatch: pytest.MonkeyPatch, machine: str, scale: str = "auto") -> Bench:
    device, count = MACHINES[machine]
    monkeypatch.setattr(devices, "found", lambda: Found("cuda", "cuda", (device,) * count))
    return Bench.open(ROOT, settings={"scale": scale})


@pytest.mark.parametrize("machine", sorted(MACHINES.keys() - {"unknown"}))
def test_the_quick_grid_is_what_auto_takes_and_its_report_is_there_in_a_quarter_of_an_hour(
    monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    bench = open_on(monkeypatch, machine)
    assert bench.scale == "gpu_quick"
    assert set(bench.names) == {name for name, scales in bench.settings["experiments"].items() if "gpu" in scales}
    first = [cell for name in bench.names for cell in bench.grid(name, first=True)]
    assert {cell.experiment for cell in first} == {"ceilings", "end_to_end", "attention", "memory", "fits"}
    assert set(first) < set(bench.cells)
    assert seconds(bench, first) < 5 * 60 - DRAWN_S
    assert seconds(bench, bench.cells) < 15 * 60 - DRAWN_S / 2


def seconds(bench: Bench, cells: Iterable[Any]) -> float:
    return sum(durations.of(bench, cell) or 0.0 for cell in cells)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_a_device_computes_slowly_is_counted(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    bench = open_on(monkeypatch, machine)
    assert ceilings.extents("matmul", "cuda") == ceilings.extents("matmul", "xpu") == durations.MATRIX_DIMS
    assert ceilings.extents("copy", "cuda") == durations.COPY_MIB
    assert durations.MAX_CALL_S == ceilings.MAX_CALL_S
    assert durations.CHECKED_SCORES == attention_check.CHECKED_SCORES
    for cell in bench.grid("ceilings"):
        took_s = (durations.of(bench, cell) or 0.0) - durations.START_S
        assert 0 < took_s < 20 * 8 / 7 * ceilings.MAX_CALL_S  # each size takes eight times as long as the one before
    operator = attention.Cell("sdpa_flash", 16384, 64, 16, dtype="bf16")
    few, one = (durations._check_s(bench, dataclasses.replace(operator, heads=heads)) for heads in (16, 2))
    assert few == one > 2 * 16384**2 / 2 * 12 * 64 / (durations._rate(bench, "fp32") / 2)


@pytest.mark.parametrize("scale", ["gpu_quick", "gpu"])
def test_where_a_grid_has_xl_it_has_the_sizes_of_the_newest_handout(
    monkeypatch: pytest.MonkeyPatch, scale: str
) -> None:
    bench = open_on(monkeypatch, "H100", scale)
    assert {"2.7B": (2560, 10240, 32, 32), "12.8B": (4608, 12288, 50, 36)}.items() <= {
        name: tuple(size[key] for key in ("d_model", "d_ff", "layers", "heads"))
        for name, size in bench.settings["sizes"].items()
    }.items()
    for name in bench.names:
        sources: dict[str, set[str]] = {}
        for cell in bench.grid(name):
            sources.setdefault(getattr(cell, "source", "measured"), set()).add(getattr(cell, "size", ""))
        for source, sizes in sources.items():
            if "xl" in sizes and (name, source) != ("fits", "measured"):  # searched for, which takes long
                assert {"2.7B", "12.8B"} <= sizes, (name, source)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_whole_grid_is_a_matter_of_hours_and_every_cell_has_an_estimate(
    monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    found = planning.by_formula(open_on(monkeypatch, machine), "gpu")
    assert (found.by_formula > 1000, found.unknown) == (True, 0)
    assert 5 < found.seconds / 3600 < 60
    bench = open_on(monkeypatch, machine, "gpu")
    estimates = [durations.of(bench, cell) for cell in bench.cells]
    assert all(each is not None and 0 < each <= bench.settings["limits"]["time_s"] for each in estimates)


def test_a_verdict_of_the_quick_grid_has_five_processes_a_side(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_on(monkeypatch, "H100")
    sides = [cell for cell in bench.grid("end_to_end") if cell.context == 256 and cell.size == "small"]
    kinds = Counter((cell.precision, cell.implementation, cell.attention) for cell in sides)
    plain, compiled, fused = ("bf16", "eager", "naive"), ("bf16", "compiled", "naive"), ("bf16", "eager", "sdpa")
    alone = ("bf16", "eager", "triton")
    assert kinds == {**dict.fromkeys((("fp32", "eager", "naive"), plain, compiled, fused), 5), alone: 1}


def test_a_cell_of_both_grids_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, whole = open_on(monkeypatch, "H100"), open_on(monkeypatch, "H100", "gpu")
    assert quick.protocol == whole.protocol


def test_the_formula_is_near_published_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports that others have published, on devices whose peaks are known."""
    ratios = {}
    for file in sorted(PUBLISHED.glob("nvidia-*.json")):
        found = json.loads(file.read_text())["records"].values()
        steps = [each for each in found if each["experiment"] == "end_to_end" and "forward_mean_s" in each["scalars"]]
        if not steps:
            continue
        facts = steps[0]["environment"]
        device = Device(facts["device_name"], memory_bytes=facts["device_memory_bytes"])
        monkeypatch.setattr(devices, "found", lambda device=device: Found("cuda", "cuda", (device,)))
        bench = Bench.open(ROOT, settings={"scale": "gpu"})
        assert durations.of_peaks(bench) == f"the vendor's peaks of {device.name}"
        for each in steps:
            cell = end_to_end.Cell(**each["cell"])
            phases = (each["scalars"].get(f"{name}_mean_s") or 0.0 for name in ("forward", "backward", "optimizer"))
            # What does not fit spilled over to the host's memory there, and took up to 50 s.
            if 4 * costs.parameters(*durations._model(bench, cell)) < 0.3 * (device.memory_bytes or 0):
                ratios[device.name, cell.name] = durations.step_s(bench, cell) / sum(phases)
    assert len(ratios) == 22
    assert min(ratios.values()) > 1 / 2, ratios
    assert max(ratios.values()) < 2, ratios
    assert abs(statistics.fmean(map(math.log, ratios.values()))) < math.log(1.2), ratios


def test_a_step_takes_the_longer_of_its_flops_and_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_on(monkeypatch, "H100", "gpu")
    few, many = (end_to_end.Cell("2.7B", context, batch=batch) for context, batch in ((128, 1), (2048, 4)))
    shape, vocabulary = durations._model(bench, few)
    state_s = 40 * costs.parameters(shape, vocabulary) / (durations.BANDWIDTH_SHARE * 3350e9)
    assert state_s < durations.step_s(bench, few) < 1.5 * state_s
    flops = 3 * costs.forward_flops(shape, vocabulary=vocabulary, batch=4, context=2048)
    assert durations.step_s(bench, many) == pytest.approx(flops / (durations.FP32_SHARE * 67e12))
    assert durations.step_s(bench, dataclasses.replace(many, attention="sdpa", precision="bf16")) < flops / 67e12


def test_a_message_takes_the_links_that_the_machine_describes(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_on(monkeypatch, "RTX 5090", "gpu")
    cell = collectives.Cell("all_reduce", "nccl", 2, 2**30)
    calls = durations.CALLS * (bench.protocol["warmup_steps"] + bench.protocol["measured_steps"])
    start_s = durations.START_S + durations.RANKS_S
    known: list[tuple[dict[str, Any], int, float]] = [
        ({"nvlinks": 18, "pcie_generation": 5, "pcie_lanes": 16}, 1, 450e9),
        ({"nvlinks": 0, "pcie_generation": 4, "pcie_lanes": 8}, 1, 8 * 1.97e9),
        ({"nvlinks": None, "pcie_generation": None, "pcie_lanes": None}, 1, 450e9),  # `network` of config.yaml
        ({"nvlinks": 18}, 2, 50e9),
    ]
    for links, nodes, bytes_per_s in known:
        bench.interconnect = links
        found = durations.of(bench, dataclasses.replace(cell, nodes=nodes))
        assert found == pytest.approx(start_s + calls * 2**30 / bytes_per_s)
    assert durations.of(bench, dataclasses.replace(cell, backend="gloo")) == pytest.approx(
        start_s + calls * 2**30 / durations.GLOO_BYTES_PER_S
    )


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
    with pytest.raises(ConfigError, match=rf"\d+ cells use Triton or torch\.compile, .* {lacking}.* install"):
        inputs.check(bench)
    assert inputs.lacks_compiler(bench, bench.grid("ceilings")) is None
    rungs = {cell.rung: inputs.lacks_compiler(bench, [cell]) is not None for cell in bench.grid("ladder")}
    assert rungs["compiled"]
    assert not rungs["sdpa"]
    monkeypatch.setattr(devices, "found", Found)
    assert inputs.lacks_compiler(Bench.open(ROOT), bench.cells) is None


def test_a_model_beside_the_sizes_has_an_estimate_and_one_of_ones_own_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_on(monkeypatch, "H100", "gpu")
    small, large = (end_to_end.Cell(size, 128, batch=1, passes="forward") for size in ("gpt2", "llama-3.2-1b"))
    assert 0 < (durations.of(bench, small) or 0.0) < (durations.of(bench, large) or 0.0)
    own = Bench.open(ROOT, settings={"scale": "gpu", "models": {"mine": {"module": "mine.py:build"}}})
    assert durations.of(own, end_to_end.Cell("mine", 128)) is None
