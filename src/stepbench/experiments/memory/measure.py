"""Where does memory go, and would it fit?"""

from __future__ import annotations

from typing import Any

from stepbench.experiments.memory.cell import Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.models import costs
from stepbench.models.sizes import ModelSize
from stepbench.workloads import decoder_step, watched_step


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Return the peak and the timeline of a step after the first, by category and phase.

    What is measured is predicted as well, because whether it fits has to be known before it is started.
    """
    shape = decoder_step.Shape(
        context=cell.context,
        batch=cell.batch,
        precision=cell.precision,
        parameter_dtype=cell.parameter_dtype,
        passes=cell.passes,
        optimizer=cell.optimizer,
    )
    size = ModelSize(**setting.definition["size"])
    known: dict[str, Any] = {"parameters": costs.parameters(size, setting.definition["vocabulary"])}
    timeline, watched_by = decoder_step.predict(setting, shape), "fake tensors"
    if cell.source == "measured":
        known["predicted_peak_bytes"] = predicted = timeline.scalars()["peak_memory_bytes"]
        decoder_step.check_fit(setting, predicted)
        watched = watched_step.watch(setting, shape)
        timeline, watched_by = watched.timeline, "the allocator's events, as torch's profiler reports them"
        known |= {f"allocator_{phase}_peak_bytes": peak for phase, peak in watched.allocator_peak_bytes.items()}
    return Measurement(
        scalars={**known, **timeline.scalars()},
        details={"timeline": timeline.details()},
        protocol={"watched_by": watched_by},
    )
