"""Check before a cell is started whether its predicted memory fits on the device."""

from __future__ import annotations

from stepbench.measure.devices import KINDS
from stepbench.measure.measurement import PredictedOutOfMemoryError

GIB = 2**30
# What a device's memory holds beside a step's tensors: CUDA's context with its kernels (0.4 to 0.6 GiB), cuBLAS'
# workspace (8 to 32 MiB), and what the allocator's rounding to blocks leaves unused.
HEADROOM_BYTES = 3 * GIB // 4


def capacity_bytes(device: str) -> int | None:
    """Return the total memory of the current device, or None for a device without its own memory."""
    if not KINDS[device].counts_memory:
        return None
    import torch

    return int(torch.get_device_module(device).get_device_properties().total_memory)


def usable_bytes(memory_bytes: int) -> int:
    """Return what a step's tensors may take of a device with so much memory: all but `HEADROOM_BYTES`."""
    return max(0, memory_bytes - HEADROOM_BYTES)


def check(predicted_bytes: int, device: str) -> None:
    """Check that a predicted peak fits on a device.

    Raises:
        PredictedOutOfMemoryError: it exceeds the device's memory without `HEADROOM_BYTES`.
    """
    capacity = capacity_bytes(device)
    if capacity is not None and predicted_bytes > usable_bytes(capacity):
        raise PredictedOutOfMemoryError(
            f"predicted to need {predicted_bytes / GIB:.1f} GiB, but the device has {capacity / GIB:.1f} GiB, "
            f"{HEADROOM_BYTES / GIB:.2f} of them for CUDA's context and the allocator; "
            "set `trust_prediction: false` to start it anyway"
        )
