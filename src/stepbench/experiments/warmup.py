"""How many steps until the numbers settle?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepbench.experiments.experiment import Experiment
from stepbench.measure.measurement import Measurement, Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stepbench.reporting.frames import Results
    from stepbench.reporting.tables import Table

CONTEXT = 128
BATCH = 4


@dataclass(frozen=True)
class Warmup:
    """A training step after so many steps of warm-up, in a process of its own."""

    size: str
    warmup: int
    replicate: int = 0


def measure(cell: Warmup, setting: Setting) -> Measurement:
    """Time a float32 training step after `cell.warmup` steps, which are kept as samples too."""
    from stepbench.experiments import _decoder_step

    return _decoder_step.measure(
        setting,
        context=CONTEXT,
        batch=BATCH,
        precision="fp32",
        implementation="eager",
        attention="naive",
        passes="train_step",
        warmup_steps=cell.warmup,
    )


# -- what is told of it; nothing above uses what is below, so that no number goes stale with a table's layout ----------

SETTLED_WITHIN = 0.05  # of the mean after the most steps of warm-up


def tabulate(results: Results) -> list[Table]:
    """Return mean ± standard deviation of each phase for each count of warm-up steps."""
    from stepbench.reporting import steps

    return [
        steps.warmup_table(
            results.groups(),
            name="warmup",
            title="Phases after so many steps of warm-up",
            caption=f"Each row is a process of its own. Context {CONTEXT}, batch {BATCH}, float32, AdamW.",
            empty="The grid has no warm-up cell.",
        )
    ]


def plot(results: Results) -> dict[str, Figure]:
    """Return the samples over the step index, those of the warm-up included."""
    from stepbench.reporting import step_figures

    described = f"Held constant: context {CONTEXT}, batch {BATCH}, float32, eager, naive attention."
    return {"warmup": step_figures.warmup(results.groups(), described)}


def find(results: Results) -> list[str]:
    """Return how much the first steps cost, and from how many steps of warm-up on the mean has settled."""
    from stepbench.reporting import step_findings

    return step_findings.warmup(results.groups(), SETTLED_WITHIN)


EXPERIMENT = Experiment(
    name="warmup",
    title="Warm-up",
    question="How many steps until the numbers settle?",
    cell=Warmup,
    measure=measure,
    settings=("protocol", "vocabulary", "data"),
    table_names=("warmup",),
    tabulate=tabulate,
    figure_names=("warmup",),
    plot=plot,
    find=find,
)
