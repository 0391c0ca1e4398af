"""The quick grid on a GPU that does not compute in bfloat16, and what is known of GPUs' capabilities."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.test_durations import MACHINES, ROOT, open_on

from stepbench.experiments.fsdp.cell import Cell as Fsdp
from stepbench.experiments.ladder.cell import Cell as Ladder
from stepbench.measure import devices, nvml
from stepbench.measure.devices import Device, Found
from stepbench.pipeline import capability, config, durations, inputs, machine
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States


def values(bench: Bench) -> set[Any]:
    return {getattr(cell, axis, None) for cell in bench.cells for axis in capability.AXES}


def test_the_quick_grid_of_a_t4_is_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    t4, h100 = open_on(monkeypatch, "T4"), open_on(monkeypatch, "H100")
    assert h100.is_without_bf16 is False
    assert "bf16" in values(h100)
    t4 = open_on(monkeypatch, "T4")
    assert t4.is_without_bf16
    assert "bf16" not in values(t4)
    sides = [cell for cell in t4.grid("end_to_end") if cell.precision == "fp16" and cell.replicate == 4]
    assert {(cell.implementation, cell.attention) for cell in sides} >= {("eager", "naive"), ("compiled", "naive")}
    assert {cell.rung for cell in t4.grid("ladder")} >= {"fp16", "sdpa"}
    assert len(set(t4.cells)) == len(t4.cells)
    assert {cell.precision for cell in t4.grid("data_parallel")} == {"fp32"}
    assert {cell.compute_dtype for cell in t4.grid("fsdp")} == {"fp32"}


def test_the_whole_grid_is_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_on(monkeypatch, "T4", "gpu")
    assert not bench.is_without_bf16
    assert "bf16" in values(bench)


def test_a_rung_is_left_alone_where_there_is_none_in_float16() -> None:
    cells = (Ladder("small", 256, "bf16"), Fsdp("measured", "small", "fsdp", context=256, compute_dtype="bf16"))
    assert [cell.rung for cell in capability.without_bf16(cells[:1], {"bf16"})] == ["bf16"]
    assert [cell.rung for cell in capability.without_bf16(cells[:1], {"fp16"})] == ["fp16"]
    assert capability.without_bf16(cells[1:], ())[0].compute_dtype == "fp32"


@pytest.mark.parametrize(
    ("names", "told", "tiles"),
    [(("T4",), "7.5", "sm_75"), (("T4", "H100"), None, None), (("unknown",), None, None), ((), None, "none")],
)
def test_what_is_known_of_the_gpus(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], told: str | None, tiles: str | None
) -> None:
    bench = open_on(monkeypatch, "T4")
    found = Found("cuda", "cuda", tuple(MACHINES[name][0] for name in names))
    monkeypatch.setattr(devices, "found", lambda: found)
    host = machine.here() if names else dataclasses.replace(bench.host, device="cpu", capabilities=())
    assert (capability.of(host), capability.tiles_of(host)) == (told, tiles)
    assert capability.lacks_bf16(host) == (told == "7.5")


def test_a_capability_that_is_no_number_lacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "found", lambda: Found("cuda", "rocm", (Device("gfx", capability="gfx942"),)))
    host = machine.here()
    assert not capability.lacks_bf16(host)
    assert capability.tiles_of(host) is None


@pytest.mark.parametrize(("name", "scale"), [*((name, "auto") for name in MACHINES), ("RTX 5090", "gpu")])
def test_a_plan_for_a_described_machine_is_the_one_on_the_machine_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, scale: str
) -> None:
    """Cells, fingerprints and estimates, on a login node without a GPU that cannot ask for the machine's links."""
    for file in ("config.yaml", config.SCHEMA):
        shutil.copy(ROOT / file, tmp_path)
    settings = {"scale": scale, "machine": "node"}
    links = {"nvlinks": 0, "pcie_generation": 4, "pcie_lanes": 8}
    with monkeypatch.context() as there:
        device, count = MACHINES[name]
        there.setattr(devices, "found", lambda: Found("cuda", "cuda", (device,) * count))
        there.setattr(nvml, "links", lambda _: links)
        here = Bench.open(tmp_path, settings=settings)
        own = planned(here)
        machine.describe(tmp_path, name="node")
    monkeypatch.setattr(devices, "found", Found)
    monkeypatch.setattr(nvml, "links", lambda _: dict.fromkeys(links))
    described = Bench.open(tmp_path, settings=settings)
    assert (here.host.described, bool(described.host.described)) == ("", True)
    assert planned(described) == own


def planned(bench: Bench) -> dict[str, Any]:
    """Return what is planned of each cell, and what decides whether its record would be stale."""
    states = States(bench)
    return {
        str(bench.path(cell)): (durations.of(bench, cell), states.fingerprint(cell), inputs.of(bench, cell))
        for cell in bench.cells
    }
