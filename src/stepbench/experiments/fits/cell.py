"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.kernels import names as kernels
from stepbench.kernels.heads import names as heads
from stepbench.parallel import names as strategies
from stepbench.pipeline import cells

TITLE = "What fits"
QUESTION = "Which batch and which context fit into how much memory?"
SETTINGS = ("protocol", "vocabulary")
READS = ()


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A training step at any batch and context, asked for its bytes alone (`predicted`), or tried at the edge.

    `measured` looks for the largest batch that runs at `context` within `memory_mib` of the allocator; none is all of a
    GPU, and a CPU needs a number. `predicted` uses neither of the two. With several ranks (our FSDP) bytes and batch
    are those of one rank.
    """

    source: Literal["predicted", "measured"]
    size: str
    context: int | None = None
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    parameter_dtype: Literal["fp32", "bf16"] = "fp32"
    attention: kernels.Name = "naive"
    head: heads.Name = "whole"
    groups: str = "none"
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_foreach"
    ranks: int = 1
    memory_mib: int | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """The modules of attention, head, and the strategy."""
        strategy = (self.strategy,) if self.strategy else ()
        return (*kernels.modules(self.attention), *heads.modules(self.head), *strategies.modules(*strategy))

    @property
    def strategy(self) -> str | None:
        """How several ranks share; None for a step that knows of no other rank."""
        return "fsdp" if self.ranks > 1 else None
