"""How much communication hides behind the backward pass?"""

from __future__ import annotations

from stepbench.experiments.data_parallel.cell import PARTNERS, Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.workloads import training
from stepbench.workloads.spec import StepSpec


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Check that the ranks compute one process' step, then time it, with and without its communication.

    Raises:
        UnsupportedError: this host cannot, or the strategy has no buckets.
    """
    spec = StepSpec.of(cell, setting)
    return training.measure(spec, setting, partner=PARTNERS.get(cell.strategy), without_communication=True)
