"""The process that asks torch which devices there are: `-m stepbench.measure.device_probe` prints JSON.

It is a process of its own because torch takes seconds to import and a context of CUDA some hundred MiB of each device,
and because CUDA reads `CUDA_VISIBLE_DEVICES` as nobody else does. Each device computes a small product: a build of
torch may see a GPU for which it has no kernels.
"""

from __future__ import annotations

import json
from typing import Any

import torch

ROWS = 64


def main() -> None:
    """Print the accelerator's kind, its devices in the order of their ordinals, and why there is none."""
    print(json.dumps(answer()))  # noqa: T201


def answer() -> dict[str, Any]:
    """Return `device` (torch's name of the kind of device), `runtime`, `devices` and `problem`."""
    kind = torch.accelerator.current_accelerator()
    if kind is None or not torch.accelerator.is_available():
        return {"device": None, "runtime": None, "devices": [], "problem": _why_none()}
    runtime = "rocm" if torch.version.hip else kind.type
    devices = [_device(kind.type, ordinal) for ordinal in range(torch.accelerator.device_count())]
    return {"device": kind.type, "runtime": runtime, "devices": devices, "problem": None}


def _device(kind: str, ordinal: int) -> dict[str, Any]:
    found: dict[str, Any] = {"name": kind, "uuid": None, "memory_bytes": None, "capability": None, "problem": None}
    module = torch.get_device_module(kind)
    try:
        if hasattr(module, "get_device_properties"):
            properties = module.get_device_properties(ordinal)
            found["name"] = properties.name
            found["memory_bytes"] = int(properties.total_memory)
            found["uuid"] = str(properties.uuid) if hasattr(properties, "uuid") else None
            found["multiprocessors"] = getattr(properties, "multi_processor_count", None)
            if kind == "cuda" and not torch.version.hip:  # ROCm's numbers are of other architectures
                found["capability"] = f"{properties.major}.{properties.minor}"
        rows = torch.ones(ROWS, ROWS, device=f"{kind}:{ordinal}")
        float((rows @ rows).sum())
    except Exception as error:  # whatever a driver makes of it, the others shall be asked
        found["problem"] = _first_line(error)
    return found


def _why_none() -> str | None:
    """Return what torch says when it is made to use the device that it was built for; None for a build for CPUs."""
    if not (torch.version.cuda or torch.version.hip):
        return None
    try:
        torch.cuda.init()
    except Exception as error:
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


if __name__ == "__main__":
    main()
