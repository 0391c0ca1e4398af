"""What do forward pass, backward pass and optimizer cost, end to end?"""

from __future__ import annotations

from stepbench.experiments.end_to_end.cell import Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.workloads import timed_step


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Time forward, backward and optimizer of a decoder, and the whole step."""
    return timed_step.measure(
        setting,
        context=cell.context,
        batch=cell.batch,
        precision=cell.precision,
        implementation=cell.implementation,
        attention=cell.attention,
        passes=cell.passes,
        warmup_steps=setting.protocol["warmup_steps"],
    )
