"""What the compute capability of a machine's GPUs decides before anything is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable
from typing import Any

from stepbench import architectures
from stepbench.measure import devices
from stepbench.pipeline.machine import Machine

# Axes whose value may be bf16: of a step, of one operator, of a strategy that casts weights, and a rung of that name.
AXES = ("precision", "dtype", "compute_dtype", "rung")
WITHOUT_BF16 = (
    "This GPU does not compute in bfloat16, which takes compute capability 8.0: the quick grid is in float16 instead, "
    "and in float32 where ranks would have to share a gradient scaler. A cell in bf16 that is asked for is unsupported."
)


def of(host: Machine) -> str | None:
    """Return the capability that all GPUs of a machine have, such as `9.0`; None where they differ or have none."""
    found = set(host.capabilities)
    return found.pop() if len(found) == 1 else None


def tiles_of(host: Machine) -> str | None:
    """Return the table of tile shapes that a machine's GPUs use; `none` without a GPU, None where it is not known."""
    return architectures.table_of(of(host)) if devices.KINDS[host.device].is_gpu else "none"


def lacks_bf16(host: Machine) -> bool:
    """Return whether a machine's GPUs are known not to compute in bfloat16."""
    major, _, minor = (of(host) or "").partition(".")
    return major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) < architectures.BF16_FROM


def without_bf16(grid: Iterable[Any], rungs: Container[str]) -> tuple[Any, ...]:
    """Return cells as they are for a GPU that does not compute in bfloat16, each once.

    Args:
        grid: the cells.
        rungs: the names of the ladder's rungs.
    """
    found: dict[Any, None] = {}
    for cell in grid:
        instead = "fp32" if getattr(cell, "ranks", 1) > 1 else "fp16"
        named = {axis: instead for axis in AXES if getattr(cell, axis, None) == "bf16"}
        if "rung" in named and instead not in rungs:
            del named["rung"]
        found[dataclasses.replace(cell, **named)] = None
    return tuple(found)
