"""Which batch and which context fit into how much memory?"""

from __future__ import annotations

import dataclasses
from typing import Any

from stepbench.experiments.fits import edge
from stepbench.experiments.fits.cell import Cell
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError
from stepbench.workloads import fits, limited, predicted
from stepbench.workloads.spec import StepSpec


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Return the predicted peak as a function of batch and context; where measured, try the batches at the edge too.

    Raises:
        UnsupportedError: the device cannot do what is asked for, the step cannot be predicted, or a limit is missing.
    """
    spec = StepSpec.of(cell, setting, batch=1, context=cell.context or 1)
    if cell.source == "measured" and cell.context is None:
        raise UnsupportedError("a measured edge needs a context, got none")
    if cell.source == "measured" and cell.ranks > 1:
        raise UnsupportedError(f"an edge is measured on one rank, got {cell.ranks}; `predicted` takes several")
    envelope = fits.find(spec, setting)
    scalars: dict[str, Any] = {"parameters": spec.work()["parameters"]}
    details: dict[str, Any] = dataclasses.asdict(envelope)
    watched_by = predicted.WATCHED_BY
    if cell.source == "measured":
        limit_bytes = limited.limit_bytes(setting, cell.memory_mib)
        expected = envelope.largest_batch(spec.context, limit_bytes)
        found = edge.find(lambda batch: limited.runs(_of(spec, batch), setting, limit_bytes), expected)
        scalars |= {
            "limit_bytes": limit_bytes,
            "predicted_largest_batch": expected,
            "largest_batch": found.last,
            "first_failing_batch": found.last + 1,
            "predicted_edge_bytes": envelope.peak_bytes(max(found.last, 1), spec.context),
        }
        details["tried"] = [[batch, fitted] for batch, fitted in found.tried]
        watched_by = limited.WATCHED_BY[setting.device]
    return Measurement(
        scalars=scalars,
        details=details,
        protocol={"watched_by": watched_by, "optimizer": spec.optimizer, "attention": spec.attention},
    )


def _of(spec: StepSpec, batch: int) -> StepSpec:
    return dataclasses.replace(spec, batch=batch)
