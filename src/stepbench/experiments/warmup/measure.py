"""How many steps until the numbers settle?"""

from __future__ import annotations

from stepbench.experiments.warmup.cell import BATCH, CONTEXT, Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.workloads import timed
from stepbench.workloads.spec import StepSpec


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Time a float32 training step after `cell.warmup` steps, which are kept as samples too."""
    spec = StepSpec.of(cell, setting, context=CONTEXT, batch=BATCH)
    return timed.measure(spec, setting, warmup_steps=cell.warmup)
