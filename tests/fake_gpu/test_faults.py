"""Faults of a machine with GPUs, one after the other: what every command and each kind of cell makes of them."""

import json
from pathlib import Path

import pytest
from tests.fake_gpu.machine import H100, RTX_5090, Machine
from tests.fake_gpu.test_cells import ON_RANKS, bench, measure

__all__ = ["bench"]

pytestmark = pytest.mark.fake_gpu

WITHOUT_PYNVML = "stepbench: nvidia-ml-py is not installed"
TUNED = """
import sys
import torch
from stepbench.cli import main
from stepbench.kernels.triton import tune
tune.tune = lambda problems, report: report(f"{len(problems)} problems on {torch.cuda.get_device_name()}")
sys.exit(main.main(["tune"]))
"""
CHECKED = """
import sys
from stepbench.cli import gpu_check
gpu_check.BUDGET_S, gpu_check.TEST_S, gpu_check.TUNE_S, gpu_check.KERNELS_S = 1.0, 20.0, 1.0, 1.0
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
    done = cuda.run(*words, gpus=(RTX_5090, RTX_5090), cwd=bench, FAKE_MISSING="pynvml")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith(WITHOUT_PYNVML)]
    assert len(told) == 1
    assert "pip install nvidia-ml-py" in told[0]
    if name == "describe":
        found = json.loads((bench / "machines" / "node.json").read_text(encoding="utf-8"))
        assert (found["capabilities"], found["driver"], found["interconnect"]["nvlinks"]) == (["12.0"] * 2, None, None)


def test_without_pynvml_the_gpu_check_runs_every_part(cuda: Machine, bench: Path) -> None:
    done = cuda.run("-c", CHECKED, gpus=(H100,), cwd=bench, FAKE_MISSING="pynvml")
    assert done.stdout.count("nvidia-ml-py is not installed") == 1
    assert "ImportError" not in done.stdout + done.stderr
    assert "ModuleNotFoundError" not in done.stdout + done.stderr
    assert "devices: ok" in done.stdout, done.stdout


@pytest.mark.parametrize("gpus", [1, 2])
def test_without_pynvml_a_record_knows_no_clocks_and_no_energy(cuda: Machine, bench: Path, gpus: int) -> None:
    cell = ("end_to_end", "size=nano,context=64,batch=1") if gpus == 1 else ("fsdp", ON_RANKS["fsdp"])
    record = measure(cuda, bench, *cell, *[RTX_5090] * gpus, FAKE_MISSING="pynvml")
    assert record["status"] == "ok", record["reason"]
    assert record["environment"]["driver"] is None
    assert [each["power_watts"] for each in record["environment"]["gpus_during"]] == [None] * gpus
    assert "step_energy_joules" not in record["scalars"]
