"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.kernels.names import Name
from stepbench.pipeline import cells

TITLE = "End to end"
QUESTION = "What do forward pass, backward pass and optimizer cost, end to end?"
SETTINGS = ("protocol", "vocabulary", "data")
READS = ("ceilings",)


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A decoder of one size, trained or run in one way."""

    size: str
    context: int
    batch: int = 4
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    implementation: Literal["eager", "compiled"] = "eager"
    attention: Name = "naive"
    passes: Literal["forward", "forward_backward", "train_step"] = "train_step"
    replicate: int = 0
