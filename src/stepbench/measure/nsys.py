"""Steps under NVIDIA's Nsight Systems, if `nsys` is on the PATH.

The recording starts and stops with the CUDA profiler, so that it excludes the warm-up. The report is for Nsight's
viewer; its table of kernels is read from the CSV that `nsys stats` prints.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TRACED = "cuda,nvtx,osrt"
KERNEL_REPORT = "cuda_gpu_kern_sum"
SUFFIX = ".nsys-rep"
NANOSECOND = 1e-9


class NsysError(RuntimeError):
    """nsys failed or printed no table; the message says which, with its last line."""


@dataclass(frozen=True)
class NsysKernel:
    """One row of nsys' table of kernels, over the whole recording."""

    name: str
    calls: int
    device_s: float


def missing_reason(device: str) -> str | None:
    """Return why nothing can be recorded here, or None if it can."""
    if shutil.which("nsys") is None:
        return "nsys is not on the PATH"
    return None if device == "cuda" else f"nsys records only CUDA kernels, but the device is {device}"


def record(command: Sequence[str], report: Path) -> list[NsysKernel]:
    """Run `command` under nsys, keep the report as `report`, and return its table of kernels.

    The command must call the CUDA profiler's start and stop (`torch.cuda.profiler`), or nothing is recorded.

    Raises:
        NsysError: nsys fails, or its table cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="stepbench-") as folder:
        fresh = Path(folder, f"report{SUFFIX}")
        options = ["--capture-range=cudaProfilerApi", "--capture-range-end=stop", f"--output={fresh}"]
        _nsys(["profile", f"--trace={TRACED}", *options, *command])
        if not fresh.exists():
            raise NsysError("nsys profile wrote no report")
        table = _nsys(["stats", f"--report={KERNEL_REPORT}", "--format=csv", str(fresh)])
        kernels = read(table)
        shutil.move(fresh, report)
    return kernels


def read(table: str) -> list[NsysKernel]:
    """Return the kernels in the output of `nsys stats`; lines before the table's heading are messages.

    Raises:
        NsysError: there is no table.
    """
    lines = table.splitlines()
    start = next((index for index, line in enumerate(lines) if "Total Time (ns)" in line and "Name" in line), None)
    if start is None:
        raise NsysError(f"nsys stats must print a table with Total Time (ns) and Name, got {_last(table)!r}")
    rows = csv.DictReader(line for line in lines[start:] if line.strip())
    try:
        return [NsysKernel(r["Name"], int(r["Instances"]), float(r["Total Time (ns)"]) * NANOSECOND) for r in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise NsysError(f"nsys stats must print numbers under Total Time (ns) and Instances, got {error}") from None


def _nsys(arguments: Sequence[str]) -> str:
    done = subprocess.run(["nsys", *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise NsysError(
            f"nsys {arguments[0]} exited with status {done.returncode}: {_last(done.stderr or done.stdout)}"
        )
    return done.stdout


def _last(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output")
