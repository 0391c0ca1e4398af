"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.kernels import names as kernels
from stepbench.kernels.heads import names as heads
from stepbench.parallel import names as strategies
from stepbench.pipeline import cells

TITLE = "Fully sharded data parallelism"
QUESTION = "What does sharding everything save and cost?"
SETTINGS = ("protocol", "vocabulary")
READS = ("ceilings", "optimizer_sharding")

STRATEGIES = {"ddp": "bucketed"}  # the others have their strategy's name
# A strategy of ours -> torch's own, whose step is timed in turn with it.
PARTNERS = {"fsdp": "torch_fsdp2"}


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A training step on several ranks that share parameters, gradients and state, asked for its bytes alone, or run.

    `prefetch` is how many units ahead ours gathers; none is its default, and what the others have.
    """

    FROM_ZERO = ("prefetch", "replicate")

    source: Literal["predicted", "measured"]
    size: str
    variant: Literal["ddp", "fsdp", "torch_fsdp2"]
    context: int
    batch: int = 4
    ranks: int = 2
    nodes: int = 1
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    parameter_dtype: Literal["fp32", "bf16"] = "fp32"
    attention: kernels.Name = "naive"
    head: heads.Name = "whole"
    groups: str = "none"
    compute_dtype: Literal["fp32", "bf16"] = "fp32"
    prefetch: int | None = None
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_foreach"
    replicate: int = 0

    @property
    def strategy(self) -> str:
        """The name of the variant's strategy."""
        return STRATEGIES.get(self.variant, self.variant)

    @property
    def named(self) -> tuple[str, ...]:
        """The modules of attention, head, the strategy, and the strategy whose step is timed in turn with it."""
        partner = PARTNERS.get(self.strategy, self.strategy)
        own = (*kernels.modules(self.attention), *heads.modules(self.head))
        return (*own, *strategies.modules(self.strategy, partner))
