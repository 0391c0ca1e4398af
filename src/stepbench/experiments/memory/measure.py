"""Where does memory go, and would it fit?"""

from __future__ import annotations

from typing import Any

from stepbench.experiments.memory.cell import Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.workloads import predicted, watched
from stepbench.workloads.spec import StepSpec


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Return the peak and the timeline of a step after the first, by category and phase.

    What is measured is predicted as well, because whether it fits has to be known before it is started. Code of the
    user's own that cannot be predicted is measured without; `unpredicted` says why.

    Raises:
        UnsupportedError: the device cannot do what is asked for; where only predicted, the step cannot be predicted.
    """
    spec = StepSpec.of(cell, setting)
    known: dict[str, Any] = {"parameters": spec.work()["parameters"]}
    protocol: dict[str, Any] = {"optimizer": spec.optimizer, "attention": spec.attention}
    if cell.source == "predicted":
        timeline, watched_by = predicted.predict(spec, setting), predicted.WATCHED_BY
    else:
        try:
            expected = predicted.predict(spec, setting)
            predicted.check_fit(spec, setting, expected)
            known["predicted_peak_bytes"] = expected.scalars()["peak_memory_bytes"]
        except predicted.UnpredictableError as error:
            known["predicted_peak_bytes"], protocol["unpredicted"] = None, str(error)
        found = watched.watch(spec, setting)
        timeline, watched_by = found.timeline, watched.WATCHED_BY
        known |= {f"allocator_{phase}_peak_bytes": peak for phase, peak in found.allocator_peak_bytes.items()}
    return Measurement(
        scalars={**known, **timeline.scalars()},
        details={"timeline": timeline.details()},
        protocol={"watched_by": watched_by, **protocol},
    )
