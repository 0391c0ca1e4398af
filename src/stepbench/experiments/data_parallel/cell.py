"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.pipeline import cells

TITLE = "Data parallelism"
QUESTION = "How much communication hides behind the backward pass?"
SETTINGS = ("protocol", "vocabulary")
READS = (
    "collectives",
    "optimizer_sharding",
    "fsdp",
    "ceilings",
)


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A training step on several ranks with a batch each; `bucket_mib` none is 25 where there are buckets."""

    size: str
    strategy: Literal["none", "naive", "flat", "overlapped", "bucketed", "torch_ddp"]
    context: int
    batch: int = 4
    bucket_mib: int | None = None
    ranks: int = 2
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_foreach"
    replicate: int = 0
