"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.kernels import names as kernels
from stepbench.kernels.heads import names as heads
from stepbench.pipeline import cells

TITLE = "End to end"
QUESTION = "What do forward pass, backward pass and optimizer cost, end to end?"
SETTINGS = ("protocol", "vocabulary", "data")
READS = ("ceilings", "warmup", "profile", "ladder")  # the same step, measured there too


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A decoder of one size, trained or run in one way.

    `groups` is none, or blocks per checkpointed group, such as 4, or 4-1 for groups of 1 inside groups of 4.
    """

    size: str
    context: int
    batch: int = 4
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    parameter_dtype: Literal["fp32", "bf16"] = "fp32"
    implementation: Literal["eager", "compiled"] = "eager"
    attention: kernels.Name = "naive"
    head: heads.Name = "whole"
    groups: str = "none"
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_foreach"
    passes: Literal["forward", "forward_backward", "train_step"] = "train_step"
    replicate: int = 0

    @property
    def named(self) -> tuple[str, ...]:
        """The modules of attention and head."""
        return (*kernels.modules(self.attention), *heads.modules(self.head))
