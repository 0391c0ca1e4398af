"""Whether a decoder's step runs within so much memory of the device's allocator."""

from __future__ import annotations

import gc

import torch

from stepbench.measure import fit, memory
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.measure.out_of_memory import is_out_of_memory
from stepbench.workloads import step, watched
from stepbench.workloads.spec import StepSpec

WATCHED_BY = {
    "cuda": "the caching allocator, which refuses what is above the limit",
    "cpu": f"{watched.WATCHED_BY}; a peak above the limit counts as refused",
}


def limit_bytes(setting: Setting, memory_mib: int | None) -> int:
    """Return the limit that a cell asks for; where it asks for none, what a step is trusted to fit into on this GPU.

    Raises:
        UnsupportedError: the device has no allocator to limit, or not so much memory.
    """
    if setting.device not in WATCHED_BY:
        raise UnsupportedError(f"a limit on memory needs the device cuda or cpu, got {setting.device}")
    total = fit.capacity_bytes(setting.device)
    capacity = None if total is None else int(total * memory.share_of_device())
    if memory_mib is None:
        if total is None or capacity is None:
            raise UnsupportedError("a CPU has no memory of its own, so `memory_mib` must be given")
        return min(capacity, fit.usable_bytes(total))
    if capacity is not None and memory_mib * 2**20 > capacity:
        raise UnsupportedError(f"`memory_mib` must be at most {capacity >> 20} on this device, got {memory_mib}")
    return memory_mib * 2**20


def runs(spec: StepSpec, setting: Setting, limit_bytes: int) -> bool:
    """Return whether two steps run within the limit, the second one with gradients and optimizer state.

    Raises:
        WrongResultError: a loss is not finite, so that what ran was no training step.
    """
    if setting.device == "cpu":
        # Not by a limit on address space: glibc's heap, from which freed pieces of all sizes come, took 39 % more.
        return watched.watch(spec, setting).timeline.scalars()["peak_memory_bytes"] <= limit_bytes
    torch.cuda.empty_cache()
    share = limit_bytes / torch.cuda.get_device_properties().total_memory
    torch.cuda.set_per_process_memory_fraction(min(share, memory.share_of_device()))
    try:
        made = step.build(spec, setting, steps=2, with_scaler=False)
        made.run()
        made.run()
        made.loss_values()  # waits for the device
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        torch.cuda.set_per_process_memory_fraction(memory.share_of_device())
        gc.collect()  # what the exception's frames held
    return True
