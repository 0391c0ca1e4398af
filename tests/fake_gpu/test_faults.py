"""Faults of a machine with GPUs, one after the other: what every command and each kind of cell makes of them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tests.fake_gpu.machine import H100, RTX_5090, Machine
from tests.fake_gpu.test_cells import ON_RANKS, bench, measure

from stepbench.pipeline.records import Record
from stepbench.reporting import conditions

__all__ = ["bench"]

pytestmark = pytest.mark.fake_gpu

WITHOUT_PYNVML = "stepbench: nvidia-ml-py is not installed"
TUNED = """
import sys
import torch
from stepbench.cli import main
from stepbench.kernels.triton import tune
tune.tune = lambda problems, report, deadline: report(f"{len(problems)} on {torch.cuda.get_device_name()}") or 0
sys.exit(main.main(["tune"]))
"""
CHECKED = """
import sys
from stepbench.cli import gpu_check
gpu_check.BUDGET_S, gpu_check.TEST_S, gpu_check.TUNE_S, gpu_check.KERNELS_S = 1.0, 20.0, 1.0, 1.0
gpu_check.LAST_WORDS_S = 0.1
sys.exit(gpu_check.main())
"""
COMMANDS = {
    "plan": (("-m", "stepbench", "plan", "numerics"), 0),
    "describe": (("-m", "stepbench", "describe", "node"), 0),
    "measure": (("-m", "stepbench", "measure", "ceilings", "operation=copy"), 0),
    "tune": (("-c", TUNED), 0),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_without_pynvml_each_command_says_so_once_and_goes_on(cuda: Machine, bench: Path, name: str) -> None:
    words, code = COMMANDS[name]
    done = cuda.run(*words, gpus=(RTX_5090, RTX_5090), cwd=bench, FAKE_MISSING="pynvml", TMPDIR=str(bench))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith(WITHOUT_PYNVML)]
    assert len(told) == 1
    assert "pip install nvidia-ml-py" in told[0]
    if name == "describe":
        found = json.loads((bench / "machines" / "node.json").read_text(encoding="utf-8"))
        assert (found["capabilities"], found["driver"], found["interconnect"]["nvlinks"]) == (["12.0"] * 2, None, None)


def test_without_pynvml_the_gpu_check_runs_every_part(cuda: Machine, bench: Path) -> None:
    done = cuda.run("-c", CHECKED, gpus=(H100,), cwd=bench, FAKE_MISSING="pynvml", TMPDIR=str(bench))
    devices, _, _ = done.stdout.partition("== tests")
    assert devices.count("nvidia-ml-py is not installed") == 1
    assert "ImportError" not in done.stdout + done.stderr
    assert "ModuleNotFoundError" not in done.stdout + done.stderr
    assert "devices: ok" in done.stdout, done.stdout


@pytest.mark.parametrize("gpus", [1, 2])
def test_without_pynvml_a_record_knows_no_clocks_and_no_energy(cuda: Machine, bench: Path, gpus: int) -> None:
    cell = ("end_to_end", "size=nano,context=64,batch=1") if gpus == 1 else ("fsdp", ON_RANKS["fsdp"])
    # Pretended GPUs have no device files, by which other ones would be told from those that are remembered.
    record = measure(cuda, bench, *cell, *[RTX_5090] * gpus, FAKE_MISSING="pynvml", TMPDIR=str(bench))
    assert record["status"] == "ok", record["reason"]
    assert record["environment"]["driver"] is None
    assert [each["power_watts"] for each in record["environment"]["gpus_during"]] == [None] * gpus
    assert "step_energy_joules" not in record["scalars"]


# -- memory that others hold, under WSL2 -------------------------------------------------------------------------------

WSL = {"FAKE_RELEASE": "6.6.87.2-microsoft-standard-WSL2", "FAKE_HELD_MIB": str(32607 - 500 - 20)}  # 20 MiB are free
SPILLING = {
    "end_to_end": "size=nano,context=64,batch=1",
    "data_parallel": "size=nano,context=64,batch=1,strategy=bucketed",
    "fsdp": "source=measured,size=nano,context=64,batch=1,variant=fsdp",
    "collectives": "operation=all_reduce,backend=nccl,ranks=2,payload_bytes=67108864",
    "encoder_decoder": "preset=3.5M,data=memory,megabytes=1,ranks=2,batch=4,context=32,steps=2",
}


@pytest.mark.parametrize("experiment", SPILLING)
def test_what_would_lie_in_the_hosts_memory_is_refused_on_ranks_too(
    cuda: Machine, bench: Path, experiment: str
) -> None:
    """The driver refuses nothing; without the allocator's limit the cell would be slow without a word."""
    record = measure(cuda, bench, experiment, SPILLING[experiment], RTX_5090, RTX_5090, **WSL)
    assert record["status"] == "oom", record["reason"]
    assert record["kind"] != "predicted_oom"


# -- load on the device ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("on_own", [[], [77]], ids=["elsewhere", "here"])
def test_what_runs_on_other_gpus_is_no_load_on_the_cells_own(
    cuda: Machine, bench: Path, ranks: int, on_own: list[int]
) -> None:
    cell = ("ceilings", "operation=copy") if ranks == 1 else ("collectives", ON_RANKS["collectives"])
    others = [f"{gpu}:{4000 + gpu}" for gpu in range(ranks, 3)] + [f"{ranks - 1}:{each}" for each in on_own]
    record = measure(cuda, bench, *cell, *[RTX_5090] * 3, FAKE_OTHERS=",".join(others))
    for when in ("before", "after"):
        found = [each["processes"] for each in record["environment"][when]["gpus"]]
        assert found == [[]] * (ranks - 1) + [on_own]
    assert others_of(record) == (["disturbed (1 other process on the device)"] if on_own else [])


def others_of(record: dict[str, Any]) -> list[str]:
    """Return the warning of other processes on the device, without other load."""
    fields = {each.name for each in dataclasses.fields(Record)}
    plain = {key: value for key, value in record.items() if key in fields}
    plain["environment"] = {**plain["environment"], "during": None}
    return [str(mark) for mark in conditions.find([Record(**plain)]) if mark.kind == "disturbed"]


# -- energy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", ["data_parallel", "optimizer_sharding", "fsdp"])
def test_the_energy_of_a_step_on_ranks_is_that_of_all_their_gpus(cuda: Machine, bench: Path, experiment: str) -> None:
    """Each pretended GPU takes 70 W whatever it does."""
    record = measure(cuda, bench, experiment, ON_RANKS[experiment], RTX_5090, RTX_5090)
    assert record["status"] == "ok", record["reason"]
    scalars = record["scalars"]
    assert scalars["energy_region_s"] >= 1.0
    step_s = scalars["energy_region_s"] / scalars["energy_steps"]
    assert scalars["step_energy_joules"] == pytest.approx(2 * 70 * step_s, rel=0.1)
    assert record["protocol"]["energy_counter"] == "NVML's counter of the GPU, of 2"


def test_the_energy_of_ranks_is_not_told_where_one_gpu_does_not_tell_its_own(cuda: Machine, bench: Path) -> None:
    refused = "nvmlDeviceGetTotalEnergyConsumption#1=3"
    record = measure(cuda, bench, "fsdp", ON_RANKS["fsdp"], RTX_5090, RTX_5090, FAKE_NVML_FAIL=refused)
    assert record["status"] == "ok", record["reason"]
    assert [key for key in record["scalars"] if "energy" in key] == []
