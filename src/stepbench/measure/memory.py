"""Peak memory of a measurement, as the device itself counts it."""

from __future__ import annotations

import resource
import sys


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
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there and KiB elsewhere
    return {
        "peak_memory_bytes": peak,
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }
