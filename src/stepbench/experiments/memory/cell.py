"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.pipeline import cells

TITLE = "Memory"
QUESTION = "Where does memory go, and would it fit?"
SETTINGS = ("vocabulary",)
READS = ("ceilings",)


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A decoder's step, asked for its bytes on fake tensors (`predicted`) or watched while it runs (`measured`)."""

    source: Literal["predicted", "measured"]
    size: str
    context: int
    batch: int = 4
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    parameter_dtype: Literal["fp32", "bf16"] = "fp32"
    passes: Literal["forward", "forward_backward", "train_step"] = "train_step"
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_foreach"
