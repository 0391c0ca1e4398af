"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.kernels import names as kernels
from stepbench.kernels.heads import names as heads
from stepbench.parallel import names as strategies
from stepbench.pipeline import cells

TITLE = "Data parallelism"
QUESTION = "How much communication hides behind the backward pass?"
SETTINGS = ("protocol", "vocabulary")
READS = ("ceilings", "collectives", "optimizer_sharding", "fsdp")


# A strategy of ours -> torch's own, whose step is timed in turn with it.
PARTNERS = {"bucketed": "torch_ddp"}


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A training step on several ranks with a batch each; `bucket_mib` none is 25 where there are buckets."""

    size: str
    strategy: strategies.Name
    context: int
    batch: int = 4
    bucket_mib: int | None = None
    ranks: int = 2
    nodes: int = 1
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    parameter_dtype: Literal["fp32", "bf16"] = "fp32"
    attention: kernels.Name = "naive"
    head: heads.Name = "whole"
    groups: str = "none"
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_foreach"
    replicate: int = 0

    @property
    def named(self) -> tuple[str, ...]:
        """The modules of attention, head, the strategy, and the strategy whose step is timed in turn with it."""
        partner = PARTNERS.get(self.strategy, self.strategy)
        own = (*kernels.modules(self.attention), *heads.modules(self.head))
        return (*own, *strategies.modules(self.strategy, partner))
