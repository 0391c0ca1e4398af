"""How much communication hides behind the backward pass?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stepbench.experiments.experiment import Experiment
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stepbench.reporting.frames import Results
    from stepbench.reporting.paired_tables import Bars
    from stepbench.reporting.tables import Table

WITH_BUCKETS = ("bucketed", "torch_ddp")
BESIDE = {"bucketed": "torch_ddp"}  # whose step is timed in turn with the strategy's own


@dataclass(frozen=True)
class DataParallel:
    """A training step on several ranks with a batch each; `bucket_mib` none is 25 where there are buckets."""

    size: str
    strategy: Literal["none", "naive", "flat", "overlapped", "bucketed", "torch_ddp"]
    context: int
    batch: int = 4
    bucket_mib: int | None = None
    ranks: int = 2
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_foreach"
    replicate: int = 0


def measure(cell: DataParallel, setting: Setting) -> Measurement:
    """Prove that the ranks compute one process' step, then time it, with and without its communication.

    Raises:
        UnsupportedError: this host cannot, or the strategy has no buckets.
    """
    from stepbench.experiments import _training
    from stepbench.experiments._replica_step import What

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
    return _training.measure(
        setting,
        What(cell.strategy, shape, cell.ranks, options),
        beside=None if other is None else What(other, shape, cell.ranks, options),
        without_communication=True,
    )


# -- what is told of it; nothing above uses what is below, so that no number goes stale with a table's layout ----------


def _bars() -> Bars:
    from stepbench.reporting.paired_tables import Bar

    return {"bucketed": Bar("torch_ddp", 1.02)}


def tabulate(results: Results) -> list[Table]:
    """Return the strategies, the buckets, what stands beside torch's own, and the projection to more ranks."""
    from stepbench.reporting import data_parallel_tables, paired_tables, projection

    return [
        data_parallel_tables.strategies(results),
        data_parallel_tables.buckets(results),
        paired_tables.beside(results, _bars()),
        projection.table(results),
    ]


def plot(results: Results) -> dict[str, Figure]:
    """Return what is exposed by strategy, a step of each over time, and the projection."""
    from stepbench.reporting import data_parallel_figures, lane_figures, projection

    return {
        "exposed": data_parallel_figures.exposed_by_strategy(results),
        "lanes": lane_figures.lanes(results, "strategy"),
        "projection": projection.figure(results),
    }


def find(results: Results) -> list[str]:
    """Return what is exposed, whether two ways to measure it agree, the best bucket, the bar, and the projection."""
    from stepbench.reporting import data_parallel_findings, paired_tables, projection

    return [*data_parallel_findings.find(results), *paired_tables.find(results, _bars()), *projection.find(results)]


EXPERIMENT = Experiment(
    name="data_parallel",
    title="Data parallelism",
    question="How much communication hides behind the backward pass?",
    cell=DataParallel,
    measure=measure,
    settings=("protocol", "vocabulary"),
    table_names=("strategies", "buckets", "beside", "projection"),
    tabulate=tabulate,
    figure_names=("exposed", "lanes", "projection"),
    plot=plot,
    find=find,
    also_reads=("collectives", "optimizer_sharding", "fsdp"),
)
