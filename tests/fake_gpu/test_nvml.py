"""What is read of a pretended NVIDIA driver, whichever of its answers it refuses."""

import ast
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.fake_gpu.machine import H100, ROOT, RTX_5090, SOFTENED, Machine

READ = """
import dataclasses, json
from stepbench.measure import nvml
driver = nvml.read()
uuid = "a0000000-0000-0000-0000-000000000000"
found = nvml.facts(uuid), nvml.state(uuid), nvml.activity(uuid), nvml.energy_joules(uuid)
print(json.dumps([dataclasses.asdict(driver), *found]))
"""
QUESTIONS = (
    "nvmlSystemGetDriverVersion", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetViolationStatus",
    "nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementDefaultLimit", "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetEccMode", "nvmlDeviceGetMigMode", "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetComputeRunningProcesses",
)  # fmt: skip


def read(nvml: Machine, *gpus: str, **more: str) -> list[Any]:
    done = nvml.run("-c", READ, gpus=gpus, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_the_driver_says_is_read(nvml: Machine) -> None:
    driver, facts, state, activity, energy = read(nvml, H100, RTX_5090, FAKE_POWER_LIMIT_MW="450000", FAKE_REASONS="4")
    assert driver["version"] == "580.95.05"
    assert [gpu["name"] for gpu in driver["gpus"]] == ["NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 5090"]
    assert facts == {
        "power_limit_watts": 450.0,
        "default_power_limit_watts": 700.0,
        "max_sm_clock_hz": 1980 * 10**6,
        "ecc": True,
        "mig": False,
        "persistence": True,
    }
    assert (state["throttle_reasons_bitmask"], state["processes"], state["held_back_by_heat_s"]) == (4, [], 0.0)
    assert activity == {"utilisation_ratio": 0.1, "power_watts": 70.0, "sm_clock_hz": 1980 * 10**6}
    assert energy > 0


def test_every_question_that_is_refused_is_answered_by_none(nvml: Machine) -> None:
    """One after the other, with the codes of not supported, no permission and a lost GPU."""
    script = """
import json, os, sys
from stepbench.measure import nvml
uuid, file = "a0000000-0000-0000-0000-000000000000", os.environ["FAKE_NVML_FAIL"][1:]
found = {}
for function in sys.argv[1:]:
    for code in (3, 4, 15):
        open(file, "w").write(f"{function}={code}")
        driver = nvml.read()
        answers = {**nvml.facts(uuid), **nvml.state(uuid), "driver": driver.version, "gpus": driver.gpus or None}
        found[f"{function} {code}"] = [name for name, value in answers.items() if value is None]
print(json.dumps(found))
"""
    refused = nvml.temporary / "refused"
    done = nvml.run("-c", script, *QUESTIONS, gpus=(H100,), FAKE_NVML_FAIL=f"@{refused}")
    assert done.returncode == 0, done.stderr
    unknown = json.loads(done.stdout)
    assert unknown["nvmlDeviceGetMemoryInfo 3"] == ["memory_used_bytes"]
    assert unknown["nvmlDeviceGetCount 4"] == unknown["nvmlDeviceGetHandleByIndex 15"] == ["gpus"]
    assert unknown["nvmlSystemGetDriverVersion 4"] == ["driver"]
    assert len(unknown["nvmlDeviceGetHandleByUUID 15"]) == 17
    # A GPU without a UUID is still one.
    assert {name for name, found in unknown.items() if not found} == {
        f"nvmlDeviceGetUUID {code}" for code in (3, 4, 15)
    }


def test_each_gpu_has_its_own_power_found_by_its_uuid(nvml: Machine) -> None:
    script = """
import ast
import importlib.util
import json
import sys
from stepbench.measure import nvml
gpus = [gpu.uuid.removeprefix("GPU-") for gpu in nvml.read().gpus]
print(json.dumps([nvml.activity(uuid)["power_watts"] for uuid in reversed(gpus)]))
"""
    done = nvml.run("-c", script, gpus=(H100, RTX_5090))
    assert json.loads(done.stdout) == [70.001, 70.0]


def test_each_check_that_is_softened_is_there() -> None:
    spec = importlib.util.spec_from_file_location("softened", SOFTENED / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    softened = importlib.util.module_from_spec(spec)
    before = list(sys.meta_path)
    spec.loader.exec_module(softened)
    sys.meta_path[:] = before
    for module, names in softened.SOFTENED.items():
        tree = ast.parse((ROOT / "src" / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8"))
        assert set(names) <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, module


@pytest.mark.parametrize(
    ("code", "problem"), [(18, "RM has detected an NVML/RM version mismatch."), (9, None), (12, None)]
)
def test_a_driver_that_does_not_answer_is_told_from_none(nvml: Machine, code: int, problem: str | None) -> None:
    driver, facts, *_ = read(nvml, H100, FAKE_NVML_FAIL=f"nvmlInit={code}")
    assert driver == {"version": None, "gpus": [], "problem": problem}
    assert set(facts.values()) == {None}


@pytest.mark.parametrize(
    ("vendor", "class_", "problem"),
    [
        ("0x10de", "0x030200", "Driver Not Loaded"),
        ("0x10de", "0x040300", None),  # the sound of a card
        ("0x8086", "0x030000", None),
    ],
)
def test_a_driver_without_its_module_is_missed_where_there_is_a_gpu_for_it(
    nvml: Machine, tmp_path: Path, vendor: str, class_: str, problem: str | None
) -> None:
    device = tmp_path / "0000:01:00.0"
    device.mkdir()
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{class_}\n")
    (tmp_path / "gone").mkdir()
    script = f"import pathlib\nfrom stepbench.measure import nvml\nnvml.PCI = pathlib.Path({str(tmp_path)!r})\n{READ}"
    done = nvml.run("-c", script, gpus=(H100,), FAKE_NVML_FAIL="nvmlInit=9")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0] == {"version": None, "gpus": [], "problem": problem}


def test_a_slice_is_found_by_its_uuid(nvml: Machine) -> None:
    mig = "NVIDIA H100 80GB HBM3 MIG 1g.10gb|9856|9.0|16|MIG-a0000000-0000-0000-0000-000000000000"
    whole = f"{H100}|GPU-c08d91cb-e324-655c-71ba-757095644500"
    driver, facts, state, activity, energy = read(nvml, whole, mig, FAKE_REASONS="4")
    assert len(driver["gpus"]) == 1
    assert state["memory_used_bytes"] > 0
    # Of the whole GPU, which a slice's own handle refuses.
    assert (facts["mig"], facts["power_limit_watts"], facts["ecc"]) == (True, 700.0, True)
    assert (state["throttle_reasons_bitmask"], state["temperature_celsius"]) == (4, 40)
    assert activity == {"utilisation_ratio": None, "power_watts": None, "sm_clock_hz": 1980 * 10**6}
    assert energy is None  # that of the whole one is not its own


def test_a_driver_of_before_535_is_asked_for_throttling_by_the_old_name(nvml: Machine) -> None:
    script = """
import pynvml
from stepbench.measure import nvml
pynvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0x20
print(nvml.state("a0000000-0000-0000-0000-000000000000")["throttle_reasons_bitmask"])
"""
    refused = "nvmlDeviceGetCurrentClocksEventReasons=13"
    assert nvml.run("-c", script, gpus=(H100,), FAKE_NVML_FAIL=refused).stdout == "32\n"


@pytest.mark.parametrize(
    "refused",
    ["nvmlDeviceGetMemoryInfo=3", "nvmlDeviceGetHandleByIndex#1=15", "nvmlDeviceGetHandleByIndex=4", "nvmlInit=18"],
)  # fmt: skip
def test_no_refused_answer_ends_a_command_with_a_traceback(nvml: Machine, refused: str) -> None:
    done = nvml.run("-m", "stepbench", "plan", "numerics", gpus=(H100, H100), FAKE_NVML_FAIL=refused)
    assert "Traceback" not in done.stderr
    assert (done.returncode, "set `device: cpu`" in done.stderr) in ((0, False), (2, True))
