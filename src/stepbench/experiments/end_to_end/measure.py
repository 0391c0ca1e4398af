"""What do forward pass, backward pass and optimizer cost, end to end?"""

from __future__ import annotations

from stepbench.experiments.end_to_end.cell import Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.workloads import timed
from stepbench.workloads.spec import StepSpec


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Time forward, backward and optimizer of a decoder, and the whole step; where it is counted, with its energy."""
    return timed.measure(StepSpec.of(cell, setting), setting, with_energy=True)
