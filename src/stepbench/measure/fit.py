"""Check before a cell is started whether its predicted memory fits on the device."""

from __future__ import annotations

from stepbench.measure.measurement import PredictedOutOfMemoryError

GIB = 2**30


def capacity_bytes(device: str) -> int | None:
    """Return the total memory of one device (`cuda`), or None for a device without its own memory."""
    if device != "cuda":
        return None
    import torch

    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


def check(predicted_bytes: int, device: str) -> None:
    """Check that a predicted peak fits on a device.

    Raises:
        PredictedOutOfMemoryError: it exceeds the device's total memory.
    """
    capacity = capacity_bytes(device)
    if capacity is not None and predicted_bytes > capacity:
        raise PredictedOutOfMemoryError(
            f"predicted to need {predicted_bytes / GIB:.1f} GiB, but the device has {capacity / GIB:.1f} GiB; "
            "set `trust_prediction: false` to start it anyway"
        )
