"""What does communication cost?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stepbench.experiments.experiment import Experiment
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stepbench.reporting.frames import Results
    from stepbench.reporting.tables import Table


@dataclass(frozen=True)
class Collectives:
    """One collective on float32; `payload_bytes` is the whole message: what is reduced, or what all have in the end."""

    operation: Literal["all_reduce", "all_gather", "reduce_scatter", "broadcast"]
    backend: Literal["gloo", "nccl"]
    ranks: int
    payload_bytes: int
    replicate: int = 0


def measure(cell: Collectives, setting: Setting) -> Measurement:
    """Have the ranks call the operation, after it was seen to give what it should.

    Gloo is given tensors of the CPU, on any machine.

    Raises:
        UnsupportedError: this host has not enough devices or cores, or the payload is no float32 for each rank.
    """
    from stepbench.experiments import _collective_on_ranks, _ranks

    if cell.backend == "nccl" and setting.device != "cuda":
        raise UnsupportedError(f"nccl needs CUDA devices, got {setting.device}")
    if cell.ranks < 2 or cell.payload_bytes < 4 * cell.ranks:
        raise UnsupportedError(
            f"a collective needs 2 ranks or more and 4 bytes for each, got {cell.ranks} and {cell.payload_bytes}"
        )
    on = setting if cell.backend == "nccl" else dataclasses.replace(setting, device="cpu")
    found = _ranks.call(
        _collective_on_ranks.timed,
        on,
        ranks=cell.ranks,
        operation=cell.operation,
        payload_bytes=cell.payload_bytes,
    )
    return Measurement(
        samples=_ranks.by_rank(found),
        scalars={"message_bytes": found[0]["scalars"]["payload_bytes"]},
        protocol={"dtype": "fp32", "loops": found[0]["scalars"]["loops"], "tensors_on": on.device},
    )


# -- what is told of it; nothing above uses what is below, so that no number goes stale with a table's layout ----------


def tabulate(results: Results) -> list[Table]:
    """Return time and bandwidth of each message, and the fit of latency and bandwidth."""
    from stepbench.reporting import collective_tables

    return [collective_tables.messages(results), collective_tables.latency_and_bandwidth(results)]


def plot(results: Results) -> dict[str, Figure]:
    """Return the bandwidth over the message's bytes."""
    from stepbench.reporting import collective_figures

    return {"bandwidth": collective_figures.bandwidth(results)}


def find(results: Results) -> list[str]:
    """Return the best bandwidth, the latency, and how well two numbers describe each operation."""
    from stepbench.reporting import collective_findings

    return collective_findings.find(results)


EXPERIMENT = Experiment(
    name="collectives",
    title="Collectives",
    question="What does communication cost?",
    cell=Collectives,
    measure=measure,
    settings=("protocol",),
    table_names=("messages", "fits"),
    tabulate=tabulate,
    figure_names=("bandwidth",),
    plot=plot,
    find=find,
)
