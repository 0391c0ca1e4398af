"""What do forward pass, backward pass and optimizer cost, end to end?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stepbench.experiments.experiment import Experiment
from stepbench.measure.measurement import Measurement, Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stepbench.reporting.frames import Results
    from stepbench.reporting.tables import Table


@dataclass(frozen=True)
class EndToEnd:
    """A decoder of one size, trained or run in one way."""

    size: str
    context: int
    batch: int = 4
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    implementation: Literal["eager", "compiled"] = "eager"
    attention: Literal["naive", "sdpa"] = "naive"
    passes: Literal["forward", "forward_backward", "train_step"] = "train_step"
    replicate: int = 0


def measure(cell: EndToEnd, setting: Setting) -> Measurement:
    """Time forward, backward and optimizer of a decoder, and the whole step."""
    from stepbench.experiments import _decoder_step

    return _decoder_step.measure(
        setting,
        context=cell.context,
        batch=cell.batch,
        precision=cell.precision,
        implementation=cell.implementation,
        attention=cell.attention,
        passes=cell.passes,
        warmup_steps=setting.protocol["warmup_steps"],
    )


def tabulate(results: Results) -> list[Table]:
    raise NotImplementedError


def plot(results: Results) -> dict[str, Figure]:
    raise NotImplementedError


def find(results: Results) -> list[str]:
    raise NotImplementedError


EXPERIMENT = Experiment(
    name="end_to_end",
    title="End to end",
    question="What do forward pass, backward pass and optimizer cost, end to end?",
    cell=EndToEnd,
    measure=measure,
    settings=("protocol", "vocabulary", "data"),
    table_names=("by_size", "by_context", "passes", "precision", "compile", "attention", "every_cell"),
    tabulate=tabulate,
    figure_names=("phases", "context", "speedups"),
    plot=plot,
    find=find,
    also_reads=("ceilings",),
)
