"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.pipeline import cells

TITLE = "Machine peaks"
QUESTION = "What are the peak rates of this machine?"
SETTINGS = ("protocol",)
READS = ()


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A square matrix product, or a copy from device memory to device memory, over a few sizes."""

    operation: Literal["matmul", "copy"]
    dtype: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    replicate: int = 0
