"""A projection of the step's time to more ranks: a model, not a measurement, and marked so wherever it is shown.

Computation is what was measured on this machine; a ring on the network that config.yaml states moves the bytes. Every
rank keeps the batch that was measured, so that work grows with ranks (weak scaling); with tensor parallelism the ranks
of a group share one batch. With S bytes of gradients or parameters, forward, backward and update F, B, U of one rank:

    data parallel     F + max(B, all-reduce(S)) + U
    sharded           F + max(B, reduce-scatter(S)) + U/n + all-gather(S)
    FSDP              max(F, all-gather(S)) + max(B, all-gather(S) + reduce-scatter(S)) + U/n
    tensor parallel   (F + B + U)/n + 4·layers·all-reduce(A), with A the bytes of one activation; nothing hides it
    FSDP × TP         tensor parallel inside a node, FSDP of what is left across nodes

Source: Rajbhandari et al. 2020 (arXiv:1910.02054), Shoeybi et al. 2019 (arXiv:1909.08053), section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from stepbench.reporting import figures, units
from stepbench.reporting.findings import listing
from stepbench.reporting.frames import Group, Results
from stepbench.reporting.message_fits import Fit, chosen
from stepbench.reporting.network import Link, Network
from stepbench.reporting.tables import RECORDS, Column, Table, frame, value

RANKS = tuple(2**power for power in range(13))
ACTIVATION_BYTES = {"bf16": 2, "fp16": 2}
STOPS_ABOVE = 0.01  # of the step; below that communication still hides
MARK = "PROJECTION"
SHARDED, FULLY = "sharded_broadcast", "fsdp"


@dataclass(frozen=True)
class Work:
    """What one rank computes and holds, as measured.

    Attributes:
        forward_s, backward_s, update_s: without communication.
        gradient_bytes: of all gradients, and of all parameters.
        activation_bytes: of one activation `[batch, context, d_model]`.
        layers: of the model.
    """

    forward_s: float
    backward_s: float
    update_s: float
    gradient_bytes: float
    activation_bytes: float
    layers: int

    @property
    def compute_s(self) -> float:
        """A step that communicates nothing."""
        return self.forward_s + self.backward_s + self.update_s


@dataclass(frozen=True)
class Step:
    """A projected step: its time, what of it is communication that nothing hides, and how many batches it trains on."""

    seconds: float
    exposed_s: float
    batches: float


def data_parallel(work: Work, network: Network, ranks: int) -> Step:
    """Project the step of data parallelism with overlapped all-reduce."""
    return _hidden(work, ranks, behind_backward=network.ring_s(ranks, work.gradient_bytes))


def sharded(work: Work, network: Network, ranks: int) -> Step:
    """Project the step with the optimizer's state sharded."""
    half = network.half_ring_s(ranks, work.gradient_bytes)
    return _hidden(work, ranks, behind_backward=half, after=half, update_share=1 / ranks)


def fsdp(work: Work, network: Network, ranks: int) -> Step:
    """Project the step of fully sharded data parallelism with perfect prefetch."""
    half = network.half_ring_s(ranks, work.gradient_bytes)
    return _hidden(work, ranks, behind_forward=half, behind_backward=2 * half, update_share=1 / ranks)


def tensor_parallel(work: Work, network: Network, ranks: int) -> Step:
    """Project the step with every layer divided over all ranks, which share one batch."""
    exposed = 4 * work.layers * network.ring_s(ranks, work.activation_bytes)
    return Step(work.compute_s / ranks + exposed, exposed, 1.0)


def fsdp_and_tensor_parallel(work: Work, network: Network, ranks: int) -> Step:
    """Project tensor parallelism inside a node and FSDP of each rank's part across nodes."""
    inside = min(ranks, network.ranks_per_node)
    nodes = ranks // inside
    part = tensor_parallel(work, network, inside)
    half = network.half_ring_s(nodes, work.gradient_bytes / inside, across_nodes=True)
    forward = work.forward_s / inside + part.exposed_s / 2
    backward = work.backward_s / inside + part.exposed_s / 2
    hidden = max(0.0, half - forward) + max(0.0, 2 * half - backward)
    update = work.update_s / ranks
    return Step(forward + backward + update + hidden, part.exposed_s + hidden, float(nodes))


STRATEGIES: dict[str, Callable[[Work, Network, int], Step]] = {
    "data parallel": data_parallel,
    "sharded optimizer": sharded,
    "FSDP": fsdp,
    "tensor parallel": tensor_parallel,
    "FSDP × tensor parallel": fsdp_and_tensor_parallel,
}


def _hidden(
    work: Work,
    ranks: int,
    *,
    behind_forward: float = 0.0,
    behind_backward: float = 0.0,
    after: float = 0.0,
    update_share: float = 1.0,
) -> Step:
    exposed = max(0.0, behind_forward - work.forward_s) + max(0.0, behind_backward - work.backward_s) + after
    computed = work.forward_s + work.backward_s + work.update_s * update_share
    return Step(computed + exposed, exposed, float(ranks))


def basis(results: Results) -> tuple[Group, Work] | None:
    """Return the largest measured step without communication, and what it comes to."""
    found = [
        (group.scalar("parameters"), group)
        for group in results.groups()
        if group.records and group.point["strategy"] in ("none", "bucketed") and group.scalar("parameters")
    ]
    if not found:
        return None
    parameters, group = max(found, key=lambda each: each[0])
    summaries = [group.summary(f"{name}_s") for name in ("forward", "backward", "optimizer")]
    forward, backward, update = (summary.median if summary else 0.0 for summary in summaries)
    size = group.records[0].protocol["size"]
    tokens = group.point["batch"] * group.point["context"]
    width = ACTIVATION_BYTES.get(group.point["precision"], 4)
    return group, Work(
        forward,
        backward,
        update,
        gradient_bytes=4.0 * parameters,
        activation_bytes=float(tokens * size["d_model"] * width),
        layers=size["layers"],
    )


def table(results: Results) -> Table:
    """Return one row for each number of ranks: the step of each strategy, and how well it scales."""
    title = f"{MARK}: the step on more ranks"
    found = basis(results)
    if found is None or results.network is None:
        why = "config.yaml states no `network`" if results.network is None else "no step has been measured"
        return Table("projection", title, "", frame([]), empty=f"There is no projection, because {why}.")
    group, work = found
    rows = [_row(work, results.network, ranks) | {RECORDS: {"": group.paths}} for ranks in RANKS]
    columns = [value("ranks"), *(_column(name) for name in STRATEGIES)]
    told = (
        f"{MARK}, not measured. Projected from the step of {_described(group)}. {results.network.in_words()} The "
        "step's time, and in brackets tokens/s per rank over those of one rank, that is how much of each further rank "
        "is left. It supposes perfect overlap and a network that nobody else uses."
    )
    return Table("projection", title, told, frame(rows), columns, "")


@figures.styled
def figure(results: Results) -> Figure:
    """Draw how much of each further rank is left, over the number of ranks, a line for each strategy."""
    found = basis(results)
    if found is None or results.network is None:
        return figures.nothing("There is nothing to project from, or no network to project to.")
    group, work = found
    drawn = figures.new(3.9, f"{MARK} from the step of {_described(group)}. {results.network.in_words()}")
    axes = drawn.subplots()
    for place, (name, project) in enumerate(STRATEGIES.items()):
        shares = [_efficiency(work, project(work, results.network, ranks), ranks) for ranks in RANKS]
        color, marker = figures.PALETTE[place], figures.MARKERS[place]
        axes.plot(RANKS, [100 * share for share in shares], marker=marker, color=color, label=name, linestyle="--")
    axes.axvline(results.network.ranks_per_node, color=figures.MUTED, linewidth=0.9, linestyle=":")
    axes.annotate(
        "one node",
        (results.network.ranks_per_node, 3),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=8.5,
        color=figures.MUTED,
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(RANKS, [str(ranks) for ranks in RANKS])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("ranks")
    axes.set_ylabel("tokens/s per rank, % of one rank's")
    axes.set_title(f"{MARK} – not measured", color=figures.PALETTE[1])
    figures.legend_above(drawn, 3)
    return drawn


def find(results: Results) -> list[str]:
    """Say from how many ranks on communication would stop hiding, and how near the model comes to what was measured."""
    found = basis(results)
    if found is None or results.network is None:
        return []
    _, work = found
    parts = []
    for name, project in STRATEGIES.items():
        limit = next((ranks for ranks in RANKS[1:] if _stops(project(work, results.network, ranks))), None)
        parts.append(f"{name} from {limit} ranks on" if limit else f"{name} not up to {RANKS[-1]}")
    return [
        f"{MARK}: communication of {units.percent(STOPS_ABOVE)} of the step or more would be exposed by "
        f"{'; by '.join(parts)}.",
        *_checked(results, found[0], work),
    ]


def _checked(results: Results, group: Group, work: Work) -> list[str]:
    """Hold the model against measured steps, with the fits of this machine's own collectives in the network's place."""
    ranks = group.point["ranks"]
    fits = [chosen(results.others.get("collectives"), each, ranks) for each in ("all_reduce", "all_gather")]
    fit = next((each for each in fits if each is not None), None)
    if fit is None:
        return []
    network = _as_network(fit)
    measured = {
        "data parallel": next((g for g in results.groups() if g.point["strategy"] == "bucketed"), None),
        "sharded optimizer": _other(results, "optimizer_sharding", SHARDED, group),
        "FSDP": _other(results, "fsdp", FULLY, group),
    }
    parts = []
    for name, other in measured.items():
        summary = other.summary("step_s") if other else None
        if summary is not None:
            step = STRATEGIES[name](work, network, ranks)
            parts.append(f"{name} {units.ratio(step.seconds / summary.median)}")
    if not parts:
        return []
    return [
        f"The same model with latency and bandwidth of this machine's own {fit.operation.replace('_', '-')} gives for "
        f"{ranks} ranks, over the step that was measured: {listing(parts)}. Below 1 the model is too optimistic, which "
        "it must be where ranks share cores and cannot overlap."
    ]


def _as_network(fit: Fit) -> Network:
    """Return a network on which a ring takes what the fit of an operation says."""
    half = 2 if fit.operation == "all_reduce" else 1
    steps = half * (fit.ranks - 1)
    link = Link(fit.latency_s / steps, fit.bytes_per_s * steps / fit.ranks)
    return Network(fit.ranks, link, link)


def _other(results: Results, experiment: str, variant: str, like: Group) -> Group | None:
    other = results.others.get(experiment)
    shared = ("size", "context", "batch", "ranks")
    for group in other.groups() if other else []:
        if group.point["variant"] == variant and all(group.point[axis] == like.point[axis] for axis in shared):
            return group
    return None


def _row(work: Work, network: Network, ranks: int) -> dict[str, Any]:
    row: dict[str, Any] = {"ranks": ranks, "projected": True}
    for name, project in STRATEGIES.items():
        step = project(work, network, ranks)
        row |= {f"{name}_s": step.seconds, f"{name}_exposed_s": step.exposed_s}
        row[f"{name}_efficiency_ratio"] = _efficiency(work, step, ranks)
    return row


def _column(name: str) -> Column:
    return Column(
        name, lambda row: f"{units.seconds(row[f'{name}_s'])} ({units.percent(row[f'{name}_efficiency_ratio'])})"
    )


def _efficiency(work: Work, step: Step, ranks: int) -> float:
    return step.batches / step.seconds / ranks * work.compute_s


def _stops(step: Step) -> bool:
    return step.exposed_s > STOPS_ABOVE * step.seconds


def _described(group: Group) -> str:
    point = group.point
    return f"{point['size']}, context {point['context']}, batch {point['batch']} per rank, {point['precision']}"
