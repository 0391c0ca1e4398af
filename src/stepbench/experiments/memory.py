"""Where does memory go, and would it fit?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stepbench.experiments.experiment import Experiment
from stepbench.measure.measurement import Measurement, Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stepbench.reporting.frames import Results
    from stepbench.reporting.tables import Table


@dataclass(frozen=True)
class Memory:
    """A decoder's step, asked for its bytes on fake tensors (`predicted`) or watched while it runs (`measured`)."""

    source: Literal["predicted", "measured"]
    size: str
    context: int
    batch: int = 4
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    parameter_dtype: Literal["fp32", "bf16"] = "fp32"
    passes: Literal["forward", "forward_backward", "train_step"] = "train_step"
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_foreach"


def measure(cell: Memory, setting: Setting) -> Measurement:
    """Return the peak and the timeline of a step after the first, by category and phase.

    What is measured is predicted as well, because whether it fits has to be known before it is started.
    """
    from stepbench.experiments import _decoder_memory, _watched_decoder
    from stepbench.models import costs
    from stepbench.models.sizes import ModelSize

    shape = _decoder_memory.Shape(
        context=cell.context,
        batch=cell.batch,
        precision=cell.precision,
        parameter_dtype=cell.parameter_dtype,
        passes=cell.passes,
        optimizer=cell.optimizer,
    )
    size = ModelSize(**setting.definition["size"])
    known: dict[str, Any] = {"parameters": costs.parameters(size, setting.definition["vocabulary"])}
    timeline, watched_by = _decoder_memory.predict(setting, shape), "fake tensors"
    if cell.source == "measured":
        known["predicted_peak_bytes"] = predicted = timeline.scalars()["peak_memory_bytes"]
        _decoder_memory.check_fit(setting, predicted)
        watched = _watched_decoder.watch(setting, shape)
        timeline, watched_by = watched.timeline, "the allocator's events, as torch's profiler reports them"
        known |= {f"allocator_{phase}_peak_bytes": peak for phase, peak in watched.allocator_peak_bytes.items()}
    return Measurement(
        scalars={**known, **timeline.scalars()},
        details={"timeline": timeline.details()},
        protocol={"watched_by": watched_by},
    )


# -- what is told of it; nothing above uses what is below, so that no number goes stale with a table's layout ----------


def tabulate(results: Results) -> list[Table]:
    """Return the peaks, predicted beside measured, and the peak of each phase by category."""
    from stepbench.reporting import memory_tables

    return [memory_tables.peaks(results), memory_tables.phases(results)]


def plot(results: Results) -> dict[str, Figure]:
    """Return the step's bytes over time, the peak by size, and the peak over the context."""
    from stepbench.reporting import memory_figures, memory_shapes

    shapes = memory_shapes.shapes(results)
    return {
        "timeline": memory_figures.timelines(shapes),
        "sizes": memory_figures.sizes(shapes),
        "context": memory_figures.contexts(shapes),
    }


def find(results: Results) -> list[str]:
    """Return what fills the memory, how good the predictions are, how the context drives it, and what would not fit."""
    from stepbench.reporting import memory_findings

    return memory_findings.find(results)


EXPERIMENT = Experiment(
    name="memory",
    title="Memory",
    question="Where does memory go, and would it fit?",
    cell=Memory,
    measure=measure,
    settings=("vocabulary",),
    table_names=("peaks", "phases"),
    tabulate=tabulate,
    figure_names=("timeline", "sizes", "context"),
    plot=plot,
    find=find,
)
