"""Peak memory of a measurement, as the device itself counts it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def reset_peak(device: str) -> None:
    """Forget the peak so far, where the device can (`cuda`)."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> dict[str, int | None]:
    """Return the peak of this process.

    Returns:
        `peak_memory_bytes`: what the caching allocator had handed out at most since `reset_peak` (`cuda`), or None
            where the device does not count; `peak_host_bytes`: the resident set of the process at its largest,
            libraries included.
    """
    peak: int | None = None
    if device == "cuda":
        import torch

        peak = torch.cuda.max_memory_allocated()
    return {"peak_memory_bytes": peak, "peak_host_bytes": peak_resident_bytes()}


def peak_resident_bytes() -> int:
    """Return the resident set of this process at its largest, in bytes.

    Linux keeps `ru_maxrss` over fork and exec: a small process started by a large one reports the large one's, so what
    belongs to the program in this process alone (VmHWM) is read there.
    """
    if sys.platform == "linux":
        line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024  # the kernel writes kB and means KiB
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there and KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
