"""Which device is measured, from what torch and the driver say; their answers are given."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stepbench.measure import devices, nvml, software
from stepbench.measure.nvml import Driver, Gpu

H200 = {"name": "NVIDIA H200", "uuid": "aa", "memory_bytes": 141 * 2**30, "capability": "9.0", "problem": None}
T400 = {**H200, "name": "NVIDIA T400", "uuid": "bb", "problem": "no kernel image is available"}
OLD = "The NVIDIA driver on your system is too old (found version 11040)."
Say = Callable[..., None]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Say]:
    """Have torch and the driver say something: `say(torch=[…], gpus=[names])`."""
    asked: list[int] = []

    def become(
        *,
        torch: list[dict[str, Any]] | None = None,
        reason: str | None = None,
        gpus: tuple[str, ...] = (),
        problem: str | None = None,
        cuda: str | None = "13.0",
        hip: str | None = None,
        xpu: str | None = None,
        version: str = "580.95",
        visible: str | None = None,
    ) -> list[int]:
        driver = Driver(version if gpus else None, tuple(Gpu(name, f"GPU-{name}") for name in gpus), problem)
        values = {"__version__": "2.13.0", "cuda": cuda, "hip": hip, "xpu": xpu}
        kind = "cuda" if torch else None
        said = {"device": kind, "runtime": kind, "devices": torch or [], "problem": reason}
        monkeypatch.setattr(software, "_torch_values", lambda: values)
        monkeypatch.setattr(nvml, "read", lambda: driver)
        monkeypatch.setattr(devices, "_ask_torch", lambda: asked.append(1) or said)
        monkeypatch.setattr(devices.sys, "platform", "linux")
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        devices.found.cache_clear()
        return asked

    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    yield become
    devices.found.cache_clear()


def test_what_torch_can_use_is_measured_whatever_the_driver_says(say: Say) -> None:
    for more in ({"gpus": ("NVIDIA H200",)}, {}, {"problem": "Insufficient Permissions"}):
        say(torch=[H200], **more)
        assert devices.find() == devices.find("cuda") == "cuda"
    assert [each.name for each in devices.found().devices] == ["NVIDIA H200"]


def test_a_slice_of_a_gpu_is_measured_under_its_own_name_and_memory(say: Say) -> None:
    mig = {**H200, "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "memory_bytes": 9856 * 2**20}
    say(torch=[mig], gpus=("NVIDIA H100 80GB HBM3",), visible="MIG-aa")
    assert devices.find() == "cuda"
    assert devices.found().devices[0].memory_bytes == 9856 * 2**20


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            {"gpus": ("NVIDIA H200",) * 2, "cuda": None},
            r"driver 580\.95 shows 2 × NVIDIA H200, but torch must be built with CUDA .* install it again",
        ),
        (
            {"gpus": ("NVIDIA H200",), "reason": OLD, "version": "470.1"},
            r"driver 470\.1 shows NVIDIA H200, but torch 2\.13\.0 \(CUDA 13\.0\) cannot use it: The NVIDIA driver",
        ),
        ({"gpus": ("NVIDIA H200",), "visible": "7"}, r"CUDA_VISIBLE_DEVICES is '7', which names none of them"),
        (
            {"problem": "Driver/library version mismatch"},
            r"driver does not answer \(Driver/library version mismatch\), and torch 2\.13\.0 finds no GPU",
        ),
        (
            {"torch": [T400], "gpus": ("NVIDIA T400",)},
            r"sees GPU 0, NVIDIA T400, but cannot compute on it: no kernel image is available; mend",
        ),
        (
            {"torch": [T400, H200], "gpus": ("NVIDIA T400", "NVIDIA H200")},
            r"leave it out \(CUDA_VISIBLE_DEVICES=1\); mend",
        ),
        (
            {"torch": [T400, H200], "gpus": ("NVIDIA T400", "NVIDIA H200"), "visible": "2, 3"},
            r"leave it out \(CUDA_VISIBLE_DEVICES=3\); mend",
        ),
    ],
)
def test_where_torch_and_the_driver_disagree_one_sentence_says_both_and_what_to_do(
    say: Say, said: dict[str, Any], sentence: str
) -> None:
    say(**said)
    for wanted in ("auto", "cuda"):
        with pytest.raises(ValueError, match=sentence) as caught:
            devices.find(wanted)
        assert "`device: cpu`" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert devices.find("cpu") == "cpu"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"reason": OLD}, r"cannot be asked, .* \(\S+/nvidia3\), but torch 2\.13\.0 \(CUDA 13\.0\) cannot use it: The"),
        ({"cuda": None}, r"cannot be asked, .*, but torch must be built with CUDA to use it"),
    ],
)
def test_without_nvml_the_kernels_files_tell_that_there_is_a_gpu(
    say: Say,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    said: dict[str, Any],
    sentence: str,
) -> None:
    """A container without libnvidia-ml, or an environment without nvidia-ml-py."""
    folder = tmp_path_factory.mktemp("dev")
    (folder / "nvidia3").touch()
    monkeypatch.setattr(devices, "DEV", folder)
    say(**said)
    with pytest.raises(ValueError, match=sentence):
        devices.find()
    assert devices.find("cpu") == "cpu"


@pytest.mark.parametrize(
    ("built", "reason", "sentence"),
    [
        ({"hip": "6.4"}, "No HIP GPUs are available", r"is built for ROCm 6\.4, but No HIP GPUs are available; mend"),
        ({"xpu": "20250200"}, None, r"torch 2\.13\.0 is built for XPU 20250200, but it finds no device; mend that, or"),
    ],
)
def test_a_build_for_gpus_of_others_that_finds_none_is_told(
    say: Say, monkeypatch: pytest.MonkeyPatch, built: dict[str, str], reason: str | None, sentence: str
) -> None:
    say(**built, cuda=None, reason=reason)
    with pytest.raises(ValueError, match=sentence):
        devices.find()
    assert devices.find("cpu") == "cpu"
    monkeypatch.setenv("HIP_VISIBLE_DEVICES" if "hip" in built else "ZE_AFFINITY_MASK", "-1")
    devices.found.cache_clear()
    assert devices.find() == "cpu"


@pytest.mark.parametrize("hidden", sorted(devices.HIDES_ALL))
def test_gpus_that_are_hidden_on_purpose_are_not_missed(say: Say, hidden: str) -> None:
    say(gpus=("NVIDIA H200",), reason="No CUDA GPUs are available", visible=hidden)
    assert devices.find() == "cpu"


def test_a_machine_without_a_driver_measures_its_cpu(say: Say) -> None:
    say(reason="Found no NVIDIA driver on your system.")
    assert devices.find() == "cpu"
    with pytest.raises(ValueError, match=r"`device` must be one that this machine has \(cpu\), got cuda"):
        devices.find("cuda")
    with pytest.raises(ValueError, match=r"`device` must be one of auto, cuda, xpu, mps, cpu, got 'tpu'"):
        devices.find("tpu")


def test_an_answer_is_kept_until_torch_driver_or_setting_change(say: Say) -> None:
    asked = say(torch=[H200], gpus=("NVIDIA H200",))
    for _ in range(2):
        devices.found.cache_clear()
        assert devices.find() == "cuda"
    assert len(asked) == 1
    for number, change in enumerate(({"version": "590.1"}, {"visible": "0"}, {"gpus": ("NVIDIA H200",) * 2}), start=2):
        say(torch=[H200], **({"gpus": ("NVIDIA H200",)} | change))
        devices.found()
        assert len(asked) == number


def test_without_nvml_an_answer_is_kept_until_there_are_other_device_files(
    say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("dev")
    monkeypatch.setattr(devices, "DEV", folder)
    asked = say(torch=[H200])
    for number, name in enumerate(("nvidia0", "nvidiactl", "nvidia1", "nvidia-caps")):
        (folder / name).touch()
        devices.found()
        assert len(asked) == (1, 1, 2, 2)[number]
        devices.found.cache_clear()


def test_a_machine_that_is_being_mended_is_asked_again(say: Say, tmp_path: Path) -> None:
    for number in (1, 2):
        asked = say(gpus=("NVIDIA H200",), reason=OLD)
        assert devices.found().problem is not None
        assert len(asked) == number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("files", "times"), [((), 1), (("kfd",), 2)], ids=["nothing there", "a kernel module"])
def test_torchs_complaint_is_kept_where_there_is_nothing_to_mend(
    say: Say,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    files: Sequence[str],
    times: int,
) -> None:
    """A CUDA build on a machine without a GPU: each cell would import torch once more."""
    folder = tmp_path_factory.mktemp("dev")
    for name in files:
        (folder / name).touch()
    monkeypatch.setattr(devices, "DEV", folder)
    asked = say(reason="Found no NVIDIA driver on your system.")
    for _ in range(2):
        assert devices.find() == "cpu"
        devices.found.cache_clear()
    assert len(asked) == times


def test_a_remembered_answer_that_is_broken_is_asked_again(say: Say, tmp_path: Path) -> None:
    asked = say(torch=[H200])
    devices.found()
    (file,) = tmp_path.iterdir()
    file.write_text("{")
    devices.found.cache_clear()
    assert devices.find() == "cuda"
    assert len(asked) == 2
    assert json.loads(file.read_text())["device"] == "cuda"


def test_a_probe_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.sys, "executable", "/bin/false")
    assert re.match("it ended with: exit status 1", devices._ask_torch()["problem"])


def test_apples_device_needs_no_probe(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = say()
    monkeypatch.setattr(devices.sys, "platform", "darwin")
    monkeypatch.setattr(devices.platform, "machine", lambda: "arm64")
    assert devices.find() == "mps"
    assert not asked
