"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass

from stepbench.kernels import names as kernels
from stepbench.kernels.heads import names as heads
from stepbench.pipeline import cells

TITLE = "Warm-up"
QUESTION = "How many steps until the numbers settle?"
SETTINGS = ("protocol", "vocabulary", "data")
READS = ("ceilings",)

# Held constant in every cell.
CONTEXT = 128
BATCH = 4


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A training step after `warmup` steps of warm-up, in a process of its own."""

    FROM_ZERO = ("warmup", "replicate")

    size: str
    warmup: int
    replicate: int = 0

    @property
    def named(self) -> tuple[str, ...]:
        """The modules of attention and head that every step has here."""
        return (*kernels.modules("naive"), *heads.modules("whole"))
