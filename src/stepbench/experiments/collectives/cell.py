"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.pipeline import cells

TITLE = "Collectives"
QUESTION = "What does communication cost?"
SETTINGS = ("protocol",)
READS = ("ceilings",)


@dataclass(frozen=True)
class Cell(cells.Cell):
    """One collective on float32; `payload_bytes` is the whole message: what is reduced, or what all have in the end."""

    operation: Literal["all_reduce", "all_gather", "reduce_scatter", "broadcast"]
    backend: Literal["gloo", "nccl"]
    ranks: int
    payload_bytes: int
    nodes: int = 1
    replicate: int = 0
