"""How much communication hides behind the backward pass?"""

from __future__ import annotations

from stepbench.experiments.data_parallel.cell import Cell
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError
from stepbench.workloads import training
from stepbench.workloads.replica_step import What

WITH_BUCKETS = ("bucketed", "torch_ddp")
BESIDE = {"bucketed": "torch_ddp"}  # whose step is timed in turn with the strategy's own


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Prove that the ranks compute one process' step, then time it, with and without its communication.

    Raises:
        UnsupportedError: this host cannot, or the strategy has no buckets.
    """
    if cell.bucket_mib is not None and (cell.strategy not in WITH_BUCKETS or cell.bucket_mib < 1):
        raise UnsupportedError(
            f"`bucket_mib` must be none or, with {', '.join(WITH_BUCKETS)}, from 1; "
            f"got {cell.bucket_mib} with {cell.strategy}"
        )
    shape = {
        "context": cell.context,
        "batch": cell.batch,
        "precision": cell.precision,
        "optimizer": cell.optimizer,
    }
    options = {} if cell.bucket_mib is None else {"bucket_mib": cell.bucket_mib}
    other = BESIDE.get(cell.strategy)
    return training.measure(
        setting,
        What(cell.strategy, shape, cell.ranks, options),
        beside=None if other is None else What(other, shape, cell.ranks, options),
        without_communication=True,
    )
