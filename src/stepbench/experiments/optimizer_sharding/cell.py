"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.pipeline import cells

TITLE = "Optimizer sharding"
QUESTION = "What does sharding the optimizer's state save and cost?"
SETTINGS = ("protocol", "vocabulary")
READS = ("ceilings",)


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A training step on several ranks whose optimizer's state is divided, asked for its bytes alone, or run."""

    source: Literal["predicted", "measured"]
    size: str
    variant: Literal["replicated", "sharded_broadcast", "sharded_reduce_scatter", "torch_zero"]
    context: int
    batch: int = 4
    ranks: int = 2
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    parameter_dtype: Literal["fp32", "bf16"] = "fp32"
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_foreach"
    replicate: int = 0
