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


def tabulate(results: Results) -> list[Table]:
    raise NotImplementedError


def plot(results: Results) -> dict[str, Figure]:
    raise NotImplementedError


def find(results: Results) -> list[str]:
    raise NotImplementedError


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
