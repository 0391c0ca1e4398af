"""Peak memory of a process, on the device and on the host."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def reset_peak(device: str) -> None:
    """Reset the device's peak, where it counts one (`cuda`)."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> dict[str, int | None]:
    """Return the peak of this process.

    Returns:
        `peak_memory_bytes`: peak of the caching allocator since `reset_peak` (`cuda`), or None for a device that does
            not count it. `peak_host_bytes`: peak resident set of the process, including libraries.
    """
    peak: int | None = None
    if device == "cuda":
        import torch

        peak = torch.cuda.max_memory_allocated()
    return {"peak_memory_bytes": peak, "peak_host_bytes": peak_resident_bytes()}


class AllocatorCalls:
    """Counts how often CUDA's caching allocator asked the driver for memory; it counts nothing on another device.

    A retry frees all cached blocks first, which waits for the device.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._before: dict[str, int] = {}

    def start(self) -> None:
        """Count from here."""
        self._before = self._read()

    def scalars(self) -> dict[str, int]:
        """Return `allocator_retries` and `device_allocations` (calls of cudaMalloc) since the start."""
        return {name: count - self._before[name] for name, count in self._read().items()}

    def _read(self) -> dict[str, int]:
        if self._device != "cuda":
            return {}
        from stepbench import versions

        return versions.allocator_calls()


def peak_resident_bytes() -> int:
    """Return the peak resident set of this process in bytes.

    Linux keeps `ru_maxrss` over fork and exec, so a small process started by a large one reports the large one's. VmHWM
    belongs only to the program in this process.
    """
    if sys.platform == "linux":
        line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024  # the kernel writes kB for KiB
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there and KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
