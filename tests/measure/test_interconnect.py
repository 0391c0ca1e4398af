"""What connects devices, with sysfs and NVML replaced."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from stepbench.measure import environment, interconnect, nvml
from stepbench.measure.devices import Device


class Links:
    """An NVIDIA driver whose GPUs have two active NVLinks of three, and do not say how wide PCIe is."""

    NVMLError = pynvml.NVMLError

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle: str) -> int:
        return 5

    def nvmlDeviceGetMaxPcieLinkWidth(self, handle: str) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetNvLinkState(self, handle: str, link: int) -> int:
        if link > 2:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return int(link < 2)


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(interconnect, "NODES_FOLDER", tmp_path / "node")
    monkeypatch.setattr(interconnect, "INFINIBAND_FOLDER", tmp_path / "infiniband")
    return tmp_path


def test_the_kernel_and_the_driver_are_asked(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def driver() -> Iterator[Any]:
        yield Links()

    for name in ("node0", "node1", "possible"):
        (sysfs / "node" / name).mkdir(parents=True)
    port = sysfs / "infiniband" / "mlx5_0" / "ports" / "1"
    port.mkdir(parents=True)
    (port / "rate").write_text("400 Gb/sec (4X NDR)\n")
    monkeypatch.setattr(nvml, "opened", driver)
    monkeypatch.setattr(environment, "used", lambda _: (Device("NVIDIA H200", "1"),))
    assert interconnect.describe("cuda") == {
        "nvlinks": 2,
        "pcie_generation": 5,
        "pcie_lanes": None,
        "infiniband": {"mlx5_0/1": "400 Gb/sec (4X NDR)"},
        "numa_nodes": 2,
    }


def test_what_is_not_there_is_not_made_up(sysfs: Path) -> None:
    assert interconnect.describe("cpu") == {
        "nvlinks": None,
        "pcie_generation": None,
        "pcie_lanes": None,
        "infiniband": {},
        "numa_nodes": None,
    }
