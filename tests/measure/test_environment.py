"""The machine as it is described, with the machine's own voices replaced: NVML, /proc, git."""

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from stepbench.measure import devices, environment, nvml
from stepbench.measure.devices import Device, Found


class FakeNvml:
    """An NVIDIA driver whose devices have the UUIDs 0, 1, …"""

    NVMLError = pynvml.NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = "sm", "memory", "celsius"

    def __init__(self, silent: tuple[str, ...] = ()) -> None:
        self._silent = silent

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in self._silent:
            return lambda *_: (_ for _ in ()).throw(pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED))
        return super().__getattribute__(name)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        if not uuid.startswith("GPU-"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return int(uuid.removeprefix("GPU-"))

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return 5_500

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=75)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=80 * 2**30, used=3 * 2**30)

    def nvmlDeviceGetClockInfo(self, handle: int, clock: str) -> int:
        return {"sm": 1980, "memory": 2619}[clock]

    def nvmlDeviceGetMaxClockInfo(self, handle: int, clock: str) -> int:
        return 1980

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:
        return 4

    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1

    def nvmlDeviceGetViolationStatus(self, handle: int, policy: int) -> SimpleNamespace:
        return SimpleNamespace(violationTime=[2_500_000_000, 0][policy])  # nanoseconds

    def nvmlDeviceGetTemperature(self, handle: int, sensor: str) -> int:
        return 61

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 345_678

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=22), SimpleNamespace(pid=11)]


Machine = Callable[..., None]
VIOLATION = "nvmlDeviceGetViolationStatus"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Have this machine be another one: `machine("NVIDIA H200", cpu="AMD EPYC", cores=8)`."""

    def become(
        *gpus: str, cpu: str = "AMD EPYC 7B13", cores: int = 2, platform: str = "linux", **nvml_options: Any
    ) -> None:
        @contextlib.contextmanager
        def opened() -> Iterator[FakeNvml | None]:
            yield FakeNvml(**nvml_options) if gpus else None

        there = tuple(Device(name, str(ordinal), 80 * 2**30) for ordinal, name in enumerate(gpus))
        kind = "cuda" if gpus else "mps" if platform == "darwin" else None
        found = Found(kind, kind, there or (Device("mps"),) * (kind == "mps"))
        monkeypatch.setattr(devices, "found", lambda: found)
        monkeypatch.setattr(devices, "driver", lambda: "570.12" if gpus else None)
        monkeypatch.setattr(nvml, "opened", opened)
        monkeypatch.setattr(environment, "_cpu_model", lambda: cpu)
        monkeypatch.setattr(environment, "cores", lambda: cores)

    return become


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpu", "cores", "name"),
    [
        ("AMD EPYC", 2, "amd-epyc-2c"),
        ("AMD EPYC 7B13 64-Core Processor", 64, "amd-epyc-7b13-64c"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", 4, "intel-xeon-platinum-8481c-4c"),
        ("Intel(R) Core(TM) i7-1185G7 @ 3.00GHz", 4, "intel-core-i7-1185g7-4c"),
        ("Apple M3 Max", 16, "apple-m3-max-16c"),
        ("", 1, "unknown-1c"),
        ("(R) (TM) @ 3 GHz", 1, "unknown-1c"),
        ("x; touch PWNED", 1, "x-touch-pwned-1c"),
        ("../../etc", 1, "etc-1c"),
        ("{machine}\n\u202e$(id)", 1, "machine-id-1c"),
        ("Zürich 数", 1, "z-rich-1c"),
        ("long " * 100, 1, ("long-" * 12) + "-1c"),
    ],
)
def test_a_machine_without_gpu_is_named_after_its_cpu(machine: Machine, cpu: str, cores: int, name: str) -> None:
    machine(cpu=cpu, cores=cores)
    assert environment.machine_name("cpu") == name


@pytest.mark.parametrize(
    ("gpus", "name"),
    [
        (("NVIDIA H200",), "nvidia-h200-1x"),
        (("NVIDIA A100-SXM4-80GB",) * 8, "nvidia-a100-sxm4-80gb-8x"),
        (("NVIDIA GeForce RTX 4060 Laptop GPU",), "nvidia-geforce-rtx-4060-laptop-gpu-1x"),
        (("NVIDIA H100 80GB HBM3 MIG 1g.10gb",), "nvidia-h100-80gb-hbm3-mig-1g-10gb-1x"),
        (("NVIDIA T400", "NVIDIA H200", "NVIDIA T400"), "nvidia-t400-2x-nvidia-h200-1x"),
        (("<script>alert(1)</script>",), "script-alert-1-script-1x"),
    ],
)
def test_a_machine_with_gpus_is_named_after_them(machine: Machine, gpus: tuple[str, ...], name: str) -> None:
    machine(*gpus)
    assert environment.machine_name("cuda") == name


def test_an_apple_machine_says_so(machine: Machine) -> None:
    machine(cpu="Apple M3 Max", platform="darwin")
    assert environment.machine_name("mps") == "apple-m3-max-1x-mps"


def test_every_machines_name_is_a_valid_setting(machine: Machine) -> None:
    from stepbench.pipeline import config

    root = Path(__file__).parents[2]
    settings = config.read(root / "config.yaml")
    for cpu in ("AMD EPYC", "", "long " * 100, "9 of diamonds", "Zürich"):
        machine(cpu=cpu)
        settings["machine"] = environment.machine_name("cpu")
        config.check(settings, schema=root / config.SCHEMA)


# -- devices -----------------------------------------------------------------------------------------------------------


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 64 if logical else 32)
    assert environment.cores() == 2
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 2 if logical else None)
    assert environment.cores() == 2
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    assert environment.cores() == 1


# -- what a record says ------------------------------------------------------------------------------------------------


def test_what_is_unknown_is_null(machine: Machine, tmp_path: Path) -> None:
    machine()
    facts = environment.describe("cpu", tmp_path)
    assert facts["driver"] is None
    assert facts["device_memory_bytes"] is None
    assert facts["git_commit"] is None
    assert facts["git_dirty"] is None
    assert facts["device_name"] == "AMD EPYC 7B13"
    assert facts["cpu_cores"] == facts["device_count"] == 2
    json.dumps(facts, allow_nan=False)


def test_the_commit_is_told_with_whether_it_was_changed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path), *words],
            check=True,
            capture_output=True,
        )

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    facts = environment.describe("cpu", tmp_path)
    assert len(facts["git_commit"]) == 40
    assert facts["git_dirty"] is False
    (tmp_path / "untracked").write_text("1")
    assert environment.describe("cpu", tmp_path)["git_dirty"] is False
    (tmp_path / "file").write_text("2")
    assert environment.describe("cpu", tmp_path)["git_dirty"] is True


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="gives a checkout to another user, as root")
def test_a_checkout_of_another_user_has_its_commit(tmp_path: Path) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init"], [*identity, "commit", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 12345, 12345)
    refused = subprocess.run(["git", "-C", str(tmp_path), "status"], capture_output=True, check=False)
    assert refused.returncode != 0
    facts = environment.describe("cpu", tmp_path)
    assert len(facts["git_commit"]) == 40
    assert facts["git_dirty"] is False


def test_a_machine_without_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.describe("cpu", tmp_path)["git_commit"] is None


def test_a_gpus_clocks_throttling_and_processes_are_recorded(machine: Machine) -> None:
    machine("NVIDIA H200", "NVIDIA H200")
    reading = environment.state("cuda")
    assert reading["gpus"][1] == {
        "utilisation_ratio": 0.75,
        "energy_joules": 5.5,
        "sm_clock_hz": 1980 * 10**6,
        "memory_clock_hz": 2619 * 10**6,
        "max_sm_clock_hz": 1980 * 10**6,
        "throttle_reasons_bitmask": 4,
        "held_back_by_power_s": 2.5,
        "held_back_by_heat_s": 0.0,
        "temperature_celsius": 61,
        "power_watts": 345.678,
        "memory_used_bytes": 3 * 2**30,
        "processes": [11, 22],
    }
    json.dumps(reading, allow_nan=False)


def test_a_question_that_a_gpu_does_not_answer_is_null(machine: Machine) -> None:
    machine("NVIDIA H200", silent=("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTemperature", VIOLATION))
    (reading,) = environment.state("cuda")["gpus"]
    assert reading["power_watts"] is None
    assert reading["temperature_celsius"] is None
    assert reading["held_back_by_heat_s"] is None
    assert reading["sm_clock_hz"] == 1980 * 10**6


def test_a_cpus_readings_are_recorded(machine: Machine) -> None:
    machine()
    reading = environment.state("cpu")
    assert reading["host_memory_available_bytes"] > 0
    assert "gpus" not in reading
    json.dumps(reading, allow_nan=False)


def test_a_cpu_that_counts_its_throttling_is_recorded(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine()
    monkeypatch.setattr(environment, "CPU_FOLDER", tmp_path)
    assert environment.state("cpu")["cpu_throttle_count"] is None
    for core, count in enumerate([3, 4]):
        folder = tmp_path / f"cpu{core}" / "thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text(f"{count}\n")
    assert environment.state("cpu")["cpu_throttle_count"] == 7


@pytest.mark.parametrize("failure", [OSError, NotImplementedError])
def test_a_machine_that_hides_its_frequency_is_described(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    def hidden() -> None:
        raise failure

    machine()
    monkeypatch.setattr(psutil, "cpu_freq", hidden)
    assert environment.state("cpu")["cpu_frequency_hz"] is None
