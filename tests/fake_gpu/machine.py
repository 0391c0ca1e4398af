"""A pretended machine: the variables with which a process finds pretended GPUs in the place of the host's own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.fake_gpu.libraries import PACKAGES

ROOT = Path(__file__).parents[2]
SOFTENED = Path(__file__).parent / "softened"

LAPTOP = "NVIDIA GeForce RTX 4060 Laptop GPU|8188|8.9|24"
RTX_5090 = "NVIDIA GeForce RTX 5090|32607|12.0|170"
H100 = "NVIDIA H100 80GB HBM3|81559|9.0|132"
T4 = "Tesla T4|15360|7.5|40"
V100 = "Tesla V100-SXM2-16GB|16384|7.0|80"
# Variables of the host that would say which GPUs there are.
HIDDEN = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Machine:
    """Pretended libraries, and how processes that use them are started.

    Attributes:
        libraries: the folder that holds them.
        temporary: the folder for temporary files, with what is remembered of devices in it.
        python: the interpreter; one with a CUDA build of torch can be imported with these libraries alone.
    """

    libraries: Path
    temporary: Path
    python: str = sys.executable

    def path(self, source: Path) -> str:
        """Return `PYTHONPATH` with which the package in `source` runs on this machine."""
        return os.pathsep.join([str(SOFTENED), str(self.libraries / PACKAGES), str(source)])

    def variables(self, *gpus: str, **more: str) -> dict[str, str]:
        """Return the environment of a process that finds these GPUs, as `devices.h` describes them."""
        kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        return {
            **kept,
            "LD_LIBRARY_PATH": str(self.libraries),
            "TRITON_LIBCUDA_PATH": str(self.libraries),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": self.path(ROOT / "src"),
            "FAKE_GPUS": ";".join(gpus),
            "STEPBENCH_PASS": ",".join(["FAKE_GPUS", *(name for name in more if name.startswith("FAKE_"))]),
            **more,
        }

    def run(
        self, *words: str, gpus: tuple[str, ...] = (), cwd: Path = ROOT, timeout_s: float = 600, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments to its end."""
        return subprocess.run(
            [self.python, *words],
            cwd=cwd,
            env=self.variables(*gpus, **more),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
