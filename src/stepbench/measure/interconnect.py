"""What connects a machine's devices with one another and with other machines, as far as it says. Unknown is None."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from stepbench.measure import environment, nvml

NODES_FOLDER = Path("/sys/devices/system/node")
INFINIBAND_FOLDER = Path("/sys/class/infiniband")


def describe(device: str) -> dict[str, Any]:
    """Return NVLinks and PCIe of the first GPU, InfiniBand's ports, and the number of NUMA nodes.

    Returns:
        `nvlinks`: active links of the first GPU; `pcie_generation` and `pcie_lanes`: the most that it can do;
        `infiniband`: each port -> its rate, such as `400 Gb/sec (4X NDR)`; `numa_nodes`. Without a GPU the first three
        are None.
    """
    return {**_gpu_links(device), "infiniband": _infiniband(), "numa_nodes": _numa_nodes()}


def _gpu_links(device: str) -> dict[str, Any]:
    return nvml.links(next((each.uuid for each in environment.used(device)), None))


def _infiniband() -> dict[str, str]:
    rates = {}
    for file in sorted(INFINIBAND_FOLDER.glob("*/ports/*/rate")):
        with contextlib.suppress(OSError):
            rates[f"{file.parts[-4]}/{file.parts[-2]}"] = file.read_text(encoding="ascii").strip()
    return rates


def _numa_nodes() -> int | None:
    return len(list(NODES_FOLDER.glob("node[0-9]*"))) or None
