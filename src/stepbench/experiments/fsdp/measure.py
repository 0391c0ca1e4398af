"""What does sharding everything save and cost?"""

from __future__ import annotations

from typing import Any

from stepbench.experiments.fsdp.cell import Cell
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError
from stepbench.workloads import training
from stepbench.workloads.replica_step import What

STRATEGIES = {"ddp": "bucketed", "fsdp": "fsdp", "torch_fsdp2": "torch_fsdp2"}
BESIDE = {"fsdp": "torch_fsdp2"}


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Predict the step's bytes; where measured, prove the variant right, time it and watch its memory as well.

    Raises:
        UnsupportedError: this host cannot, the variant cannot be predicted, or it has no prefetch to set.
    """
    if cell.prefetch is not None and cell.variant != "fsdp":
        raise UnsupportedError(f"`prefetch` must be none for all variants but fsdp, got {cell.prefetch}")
    if cell.source == "predicted":
        return training.predicted(setting, _what(cell, cell.variant))
    other = BESIDE.get(cell.variant)
    return training.measure(
        setting, _what(cell, cell.variant), beside=None if other is None else _what(cell, other), watch=True
    )


def _what(cell: Cell, variant: str) -> What:
    """Return what the ranks do; DDP has no compute dtype of its own, and computes in autocast."""
    shape = {
        "context": cell.context,
        "batch": cell.batch,
        "precision": cell.compute_dtype if variant == "ddp" else "fp32",
        "optimizer": cell.optimizer,
    }
    options: dict[str, Any] = {} if variant == "ddp" else {"compute_dtype": cell.compute_dtype}
    if variant == "fsdp" and cell.prefetch is not None:
        options["prefetch"] = cell.prefetch
    return What(STRATEGIES[variant], shape, cell.ranks, options)
