"""What does sharding the optimizer's state save and cost?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stepbench.experiments.experiment import Experiment
from stepbench.measure.measurement import Measurement, Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stepbench.reporting.frames import Results
    from stepbench.reporting.paired_tables import Bars
    from stepbench.reporting.tables import Table

REPLICATED = "bucketed"  # the strategy whose optimizer is whole on every rank
BESIDE = {"sharded_broadcast": "torch_zero"}


@dataclass(frozen=True)
class OptimizerSharding:
    """A training step on several ranks whose optimizer's state is divided, asked for its bytes alone, or run."""

    source: Literal["predicted", "measured"]
    size: str
    variant: Literal["replicated", "sharded_broadcast", "sharded_reduce_scatter", "torch_zero"]
    context: int
    batch: int = 4
    ranks: int = 2
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    parameter_dtype: Literal["fp32", "bf16"] = "fp32"
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_foreach"
    replicate: int = 0


def measure(cell: OptimizerSharding, setting: Setting) -> Measurement:
    """Predict the step's bytes; where measured, prove the variant right, time it and watch its memory as well.

    Raises:
        UnsupportedError: this host cannot, or the variant cannot be predicted.
    """
    from stepbench.experiments import _training
    from stepbench.experiments._replica_step import What

    shape = {
        "context": cell.context,
        "batch": cell.batch,
        "precision": cell.precision,
        "parameter_dtype": cell.parameter_dtype,
        "optimizer": cell.optimizer,
    }
    what = What(REPLICATED if cell.variant == "replicated" else cell.variant, shape, cell.ranks)
    if cell.source == "predicted":
        return _training.predicted(setting, what)
    other = BESIDE.get(cell.variant)
    return _training.measure(
        setting, what, beside=None if other is None else What(other, shape, cell.ranks), watch=True
    )


# -- what is told of it; nothing above uses what is below, so that no number goes stale with a table's layout ----------


def _bars() -> Bars:
    from stepbench.reporting.paired_tables import Bar

    return {"sharded_broadcast": Bar("torch_zero", 1.0, memory_ratio=1.0)}


def tabulate(results: Results) -> list[Table]:
    """Return the bytes of each variant, its time, and what stands beside torch's own."""
    from stepbench.reporting import paired_tables, sharding_tables

    return [
        sharding_tables.memory(results),
        sharding_tables.time(results),
        paired_tables.beside(results, _bars()),
    ]


def plot(results: Results) -> dict[str, Figure]:
    """Return the bytes of each variant by category, and a step of each over time."""
    from stepbench.reporting import lane_figures, sharding_figures

    return {
        "memory": sharding_figures.memory(results),
        "lanes": lane_figures.lanes(results, "variant"),
    }


def find(results: Results) -> list[str]:
    """Return what each variant saves and costs, and whether the bar is met."""
    from stepbench.reporting import paired_tables, sharding_findings

    return [*sharding_findings.find(results), *paired_tables.find(results, _bars())]


EXPERIMENT = Experiment(
    name="optimizer_sharding",
    title="Optimizer sharding",
    question="What does sharding the optimizer's state save and cost?",
    cell=OptimizerSharding,
    measure=measure,
    settings=("protocol", "vocabulary"),
    table_names=("memory", "time", "beside"),
    tabulate=tabulate,
    figure_names=("memory", "lanes"),
    plot=plot,
    find=find,
)
