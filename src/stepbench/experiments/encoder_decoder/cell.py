"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.kernels import names as kernels
from stepbench.parallel import names as strategies
from stepbench.pipeline import cells

TITLE = "Whole epochs of an encoder-decoder"
QUESTION = "How fast does a training epoch run, with its data?"
SETTINGS = ("protocol",)
READS = ("ceilings",)


@dataclass(frozen=True)
class Cell(cells.Cell):
    """Epochs over synthetic pairs of `context` tokens a side; `batch` is one rank's, `steps` none is the whole data."""

    preset: str
    data: Literal["memory", "disk"]
    megabytes: int
    ranks: int
    nodes: int = 1
    batch: int = 32
    context: int = 128
    steps: int | None = None
    precision: Literal["fp16", "bf16", "fp32"] = "fp16"
    attention: kernels.Name = "sdpa"
    replicate: int = 0

    @property
    def strategy(self) -> str:
        """The name of the strategy with which this number of ranks trains."""
        return "bucketed" if self.ranks > 1 else "none"

    @property
    def named(self) -> tuple[str, ...]:
        """The modules of the attention implementation and of the strategy."""
        return (*kernels.modules(self.attention), *strategies.modules(self.strategy))
