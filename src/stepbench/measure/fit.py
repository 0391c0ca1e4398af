"""Whether what is predicted to be needed is there, before anything is started."""

from __future__ import annotations

from stepbench.measure.measurement import PredictedOutOfMemoryError

GIB = 2**30


def capacity_bytes(device: str) -> int | None:
    """Return what one device has in all (`cuda`), or None where the device is no memory of its own."""
    if device != "cuda":
        return None
    import torch

    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


def check(predicted_bytes: int, device: str) -> None:
    """Refuse what is predicted not to fit on a device.

    Raises:
        PredictedOutOfMemoryError: it needs more than the device has in all.
    """
    capacity = capacity_bytes(device)
    if capacity is not None and predicted_bytes > capacity:
        raise PredictedOutOfMemoryError(
            f"predicted to need {predicted_bytes / GIB:.1f} GiB, and the device has {capacity / GIB:.1f} GiB; "
            "`trust_prediction: false` starts it anyway"
        )
