"""How many steps until the numbers settle?"""

from __future__ import annotations

from stepbench.experiments.warmup.cell import BATCH, CONTEXT, Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.workloads import timed_step


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Time a float32 training step after `cell.warmup` steps, which are kept as samples too."""
    return timed_step.measure(
        setting,
        context=CONTEXT,
        batch=BATCH,
        precision="fp32",
        implementation="eager",
        attention="naive",
        passes="train_step",
        warmup_steps=cell.warmup,
    )
