"""What does sharding everything save and cost?"""

from __future__ import annotations

import dataclasses

from stepbench.experiments.fsdp.cell import PARTNERS, Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.workloads import training
from stepbench.workloads.spec import StepSpec


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Predict the step's bytes; where measured, check the variant, time it and watch its memory as well.

    Raises:
        UnsupportedError: this host cannot, the variant cannot be predicted, or it has no prefetch to set.
    """
    spec = StepSpec.of(cell, setting)
    if cell.variant == "ddp" and cell.compute_dtype != "fp32":
        # DDP has no compute dtype of its own, and computes in autocast.
        spec = dataclasses.replace(spec, precision=cell.compute_dtype, compute_dtype="fp32")
    if cell.source == "predicted":
        return training.predicted(spec, setting)
    return training.measure(spec, setting, partner=PARTNERS.get(cell.strategy), watch=True)
