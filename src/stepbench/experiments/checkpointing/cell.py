"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.pipeline import cells

TITLE = "Checkpointing"
QUESTION = "What does computing activations again buy, and what does it cost?"
SETTINGS = ("protocol", "vocabulary")
READS = ("ceilings",)


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A training step whose blocks are checkpointed in groups; `nested` is the size of the groups inside a group."""

    size: str
    context: int
    batch: int = 4
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    blocks_per_checkpoint: int | None = None
    nested: int | None = None
    replicate: int = 0
