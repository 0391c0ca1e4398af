"""The axes of the experiment, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stepbench.pipeline import cells

TITLE = "Numerics"
QUESTION = "What does low precision do to sums and to dtypes?"
SETTINGS = ("protocol",)
READS = ("ceilings",)

# The sum: the value of a term, and the number of terms.
TERM, TERMS = 0.01, 1000
# The devices whose autocast is asked for dtypes, whether they are there or not.
POLICIES = ("cpu", "cuda")


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A sum of a thousand terms, or the dtypes that autocast chooses."""

    case: Literal["accumulation", "autocast_fp16", "autocast_bf16"]
