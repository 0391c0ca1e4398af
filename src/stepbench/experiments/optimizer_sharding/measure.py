"""What does sharding the optimizer's state save and cost?"""

from __future__ import annotations

from stepbench.experiments.optimizer_sharding.cell import Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.workloads import training
from stepbench.workloads.replica_step import What

REPLICATED = "bucketed"  # the strategy whose optimizer is whole on every rank
BESIDE = {"sharded_broadcast": "torch_zero"}


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Predict the step's bytes; where measured, prove the variant right, time it and watch its memory as well.

    Raises:
        UnsupportedError: this host cannot, or the variant cannot be predicted.
    """
    shape = {
        "context": cell.context,
        "batch": cell.batch,
        "precision": cell.precision,
        "parameter_dtype": cell.parameter_dtype,
        "optimizer": cell.optimizer,
    }
    what = What(REPLICATED if cell.variant == "replicated" else cell.variant, shape, cell.ranks)
    if cell.source == "predicted":
        return training.predicted(setting, what)
    other = BESIDE.get(cell.variant)
    return training.measure(setting, what, beside=None if other is None else What(other, shape, cell.ranks), watch=True)
