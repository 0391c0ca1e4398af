"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.kernels import names as kernels
from stepbench.kernels.heads import names as heads
from stepbench.pipeline import cells

TITLE = "Profile"
QUESTION = "Which operators and kernels take the time?"
SETTINGS = ("protocol", "vocabulary")
READS = ("ceilings",)


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A decoder's step under torch's profiler, and under nsys where there is one."""

    size: str
    context: int
    batch: int = 4
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    implementation: Literal["eager", "compiled"] = "eager"
    passes: Literal["forward", "forward_backward", "train_step"] = "train_step"
    replicate: int = 0

    @property
    def named(self) -> tuple[str, ...]:
        """The modules of attention and head that every step has here."""
        return (*kernels.modules("naive"), *heads.modules("whole"))
