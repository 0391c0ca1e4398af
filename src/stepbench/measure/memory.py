"""Peak memory of a process, on the device and on the host."""

from __future__ import annotations

import functools
import gc
import platform
import resource
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from stepbench.measure.devices import KINDS

if TYPE_CHECKING:
    from torch import Tensor

_STATUS = Path("/proc/self/status")


@functools.cache
def share_of_device() -> float:
    """Return the share of a CUDA device's memory that this process may take.

    Under WSL2 the driver refuses nothing: what is beyond the device's memory lies in the host's, and is read over the
    bus without a word. So no more is taken there than is free when this is first asked.
    """
    if "microsoft" not in platform.release().lower():
        return 1.0
    import torch

    free, total = torch.cuda.mem_get_info()
    return free / total


def keep_to_device(device: str) -> None:
    """Have the caching allocator refuse what would lie in the host's memory, where the driver does not."""
    if KINDS[device].has_events and (share := share_of_device()) < 1:
        import torch

        torch.cuda.set_per_process_memory_fraction(share)


def reset_peak(device: str) -> None:
    """Reset the device's peak, where it counts one."""
    if KINDS[device].counts_memory:
        import torch

        torch.accelerator.reset_peak_memory_stats()


def peak_bytes(device: str) -> dict[str, int | None]:
    """Return the peak of this process.

    Returns:
        `peak_memory_bytes`: peak of the caching allocator since `reset_peak`, or None for a device that does not count
            it. `peak_host_bytes`: peak resident set of the process, including libraries.
    """
    peak: int | None = None
    if KINDS[device].counts_memory:
        import torch

        peak = torch.accelerator.max_memory_allocated()
    return {"peak_memory_bytes": peak, "peak_host_bytes": peak_resident_bytes()}


def peak_of(work: Callable[[], object], *, device: str, inputs: Iterable[Tensor]) -> dict[str, int | None]:
    """Run `work` once and return the peak of its own memory: its inputs and what it allocates meanwhile.

    What the process holds besides, such as cuBLAS' workspace or a buffer that clears the cache, is none of it; so
    `work` must have run before.

    Returns:
        As `peak_bytes`.
    """
    collect(device)
    reset_peak(device)
    before = _allocated_bytes(device)
    work()
    found = peak_bytes(device)
    if found["peak_memory_bytes"] is not None and before is not None:
        found["peak_memory_bytes"] += sum(tensor.untyped_storage().nbytes() for tensor in inputs) - before
    return found


def collect(device: str) -> None:
    """End a stage: free what reference cycles still hold, and give the device's cached blocks back.

    A step of a sharded model is full of cycles, and Python collects them when it likes; until then the next stage would
    have to fit beside this one.
    """
    gc.collect()
    if KINDS[device].counts_memory:
        import torch

        torch.accelerator.synchronize()
        torch.accelerator.empty_cache()


def _allocated_bytes(device: str) -> int | None:
    if not KINDS[device].counts_memory:
        return None
    import torch

    return int(torch.accelerator.memory_allocated())


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
