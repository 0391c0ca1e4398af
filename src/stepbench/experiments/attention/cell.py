"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.kernels import names as kernels
from stepbench.pipeline import cells

TITLE = "Attention"
QUESTION = "What does one attention operator cost in each implementation?"
SETTINGS = ("protocol",)
READS = ("ceilings",)


@dataclass(frozen=True)
class Cell(cells.Cell):
    """One operator on random inputs of one shape."""

    implementation: kernels.Name
    seq: int
    head_dim: int
    heads: int = 1
    batch: int = 1
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    causal: bool = True
    replicate: int = 0

    @property
    def named(self) -> tuple[str, ...]:
        """The module of the implementation."""
        return kernels.modules(self.implementation)
