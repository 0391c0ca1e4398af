"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.pipeline import cells

TITLE = "Fully sharded data parallelism"
QUESTION = "What does sharding everything save and cost?"
SETTINGS = ("protocol", "vocabulary")
READS = (
    "optimizer_sharding",
    "ceilings",
)


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A training step on several ranks that share parameters, gradients and state, asked for its bytes alone, or run.

    `prefetch` is how many units ahead ours gathers; none is its default, and what the others have.
    """

    source: Literal["predicted", "measured"]
    size: str
    variant: Literal["ddp", "fsdp", "torch_fsdp2"]
    context: int
    batch: int = 4
    ranks: int = 2
    compute_dtype: Literal["fp32", "bf16"] = "fp32"
    prefetch: int | None = None
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_foreach"
    replicate: int = 0
