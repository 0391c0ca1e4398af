"""What does sharding the optimizer's state save and cost?"""

from __future__ import annotations

from stepbench.experiments.optimizer_sharding.cell import PARTNERS, Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.workloads import training
from stepbench.workloads.spec import StepSpec


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Predict the step's bytes; where measured, check the variant, time it and watch its memory as well.

    Raises:
        UnsupportedError: this host cannot, or the variant cannot be predicted.
    """
    spec = StepSpec.of(cell, setting)
    if cell.source == "predicted":
        return training.predicted(spec, setting)
    return training.measure(spec, setting, partner=PARTNERS.get(cell.strategy), watch=True)
