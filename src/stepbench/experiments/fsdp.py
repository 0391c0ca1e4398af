"""What does sharding everything save and cost?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stepbench.experiments.experiment import Experiment
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stepbench.experiments._replica_step import What
    from stepbench.reporting.frames import Results
    from stepbench.reporting.paired_tables import Bars
    from stepbench.reporting.tables import Table

STRATEGIES = {"ddp": "bucketed", "fsdp": "fsdp", "torch_fsdp2": "torch_fsdp2"}
BESIDE = {"fsdp": "torch_fsdp2"}


@dataclass(frozen=True)
class Fsdp:
    """A training step on several ranks that share parameters, gradients and state, asked for its bytes alone, or run.

    `prefetch` is how many units ahead ours gathers; none is its default, and what the others have.
    """

    source: Literal["predicted", "measured"]
    size: str
    variant: Literal["ddp", "fsdp", "torch_fsdp2"]
    context: int
    batch: int = 4
    ranks: int = 2
    compute_dtype: Literal["fp32", "bf16"] = "fp32"
    prefetch: int | None = None
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_foreach"
    replicate: int = 0


def measure(cell: Fsdp, setting: Setting) -> Measurement:
    """Predict the step's bytes; where measured, prove the variant right, time it and watch its memory as well.

    Raises:
        UnsupportedError: this host cannot, the variant cannot be predicted, or it has no prefetch to set.
    """
    from stepbench.experiments import _training

    if cell.prefetch is not None and cell.variant != "fsdp":
        raise UnsupportedError(f"`prefetch` must be none for all variants but fsdp, got {cell.prefetch}")
    if cell.source == "predicted":
        return _training.predicted(setting, _what(cell, cell.variant))
    other = BESIDE.get(cell.variant)
    return _training.measure(
        setting, _what(cell, cell.variant), beside=None if other is None else _what(cell, other), watch=True
    )


def _what(cell: Fsdp, variant: str) -> What:
    """Return what the ranks do; DDP has no compute dtype of its own, and computes in autocast."""
    from stepbench.experiments._replica_step import What

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


# -- what is told of it; nothing above uses what is below, so that no number goes stale with a table's layout ----------


def _bars() -> Bars:
    from stepbench.reporting.paired_tables import Bar

    return {"fsdp": Bar("torch_fsdp2", 1.1, memory_ratio=1.05)}


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
    name="fsdp",
    title="Fully sharded data parallelism",
    question="What does sharding everything save and cost?",
    cell=Fsdp,
    measure=measure,
    settings=("protocol", "vocabulary"),
    table_names=("memory", "time", "beside"),
    tabulate=tabulate,
    figure_names=("memory", "lanes"),
    plot=plot,
    find=find,
    also_reads=("optimizer_sharding",),
)
