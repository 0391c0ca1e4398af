"""A projection of the step's time to more ranks: a model, not a measurement, and labelled so wherever it is shown.

Computation is as measured on this machine; communication is a ring on the network that config.yaml states. Every rank
keeps the measured batch, so that work grows with ranks (weak scaling); with tensor parallelism the ranks of a group
share one batch. With S bytes of gradients or parameters, forward, backward and update F, B, U of one rank:

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

from stepbench.experiments.data_parallel.network import Link, Network
from stepbench.reporting import figures, units
from stepbench.reporting.columns import RECORDS, Column, axis_words, value
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, listing, said
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import Fit, chosen
from stepbench.reporting.points import Group
from stepbench.reporting.tables import Table

RANKS = tuple(2**power for power in range(13))
ACTIVATION_BYTES = {"bf16": 2, "fp16": 2}
STOPS_ABOVE = 0.01  # of the step; below that communication still hides
MARK = "PROJECTION"
PHASE_KEYS = ("forward_s", "backward_s", "optimizer_s")
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
    """A projected step: its time, its exposed communication, and how many batches it trains on."""

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
    summaries = [group.summary(key) for key in PHASE_KEYS]
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


def network_of(results: Results) -> Network | None:
    """Return the network that config.yaml states, or None."""
    return Network.of(results.settings.get("network"))


def table(results: Results) -> Table:
    """Return one row for each number of ranks: the step of each strategy, and its scaling efficiency."""
    title = f"{MARK}: the step on more ranks"
    found, network = basis(results), network_of(results)
    if found is None or network is None:
        why = "config.yaml states no `network`" if network is None else "no step has been measured"
        return Table(title, "", [], empty=f"There is no projection, because {why}.")
    group, work = found
    rows = [_row(work, network, ranks) | {RECORDS: {"": group.paths}} for ranks in RANKS]
    columns = [value("ranks"), *(_column(name) for name in STRATEGIES)]
    caption = (
        f"{MARK}, not measured, from the step of {_described(group)}. {network.in_words()} The step's time, and in "
        "brackets the scaling efficiency: tokens/s per rank over those of one rank. Assumptions: perfect overlap, and "
        "no other traffic."
    )
    return Table(title, caption, rows, columns)


@figures.styled
def figure(results: Results) -> Figure:
    """Draw the scaling efficiency over the number of ranks, a line for each strategy."""
    found, network = basis(results), network_of(results)
    if found is None or network is None:
        return figures.nothing("There is nothing to project from, or no network to project to.")
    group, work = found
    drawn = figures.new(3.9, f"{MARK} from the step of {_described(group)}. {network.in_words()}")
    axes = drawn.subplots()
    for place, (name, project) in enumerate(STRATEGIES.items()):
        shares = [_efficiency(work, project(work, network, ranks), ranks) for ranks in RANKS]
        color, marker = figures.PALETTE[place], figures.MARKERS[place]
        axes.plot(RANKS, [100 * share for share in shares], marker=marker, color=color, label=name, linestyle="--")
    axes.axvline(network.ranks_per_node, color=figures.MUTED, linewidth=0.9, linestyle=":")
    place_of_text: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points"}
    axes.annotate("one node", (network.ranks_per_node, 3), fontsize=8.5, color=figures.MUTED, **place_of_text)
    axes.set_xscale("log", base=2)
    axes.set_xticks(RANKS, [str(ranks) for ranks in RANKS])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("ranks")
    axes.set_ylabel("scaling efficiency (%)")
    axes.set_title(f"{MARK} – not measured", color=figures.PALETTE[1])
    figures.legend_above(drawn, 3)
    return drawn


def find(results: Results) -> list[Finding]:
    """Return from how many ranks on communication is exposed, and how near the model comes to measured steps."""
    found, network = basis(results), network_of(results)
    if found is None or network is None:
        return []
    group, work = found
    parts = []
    for name, project in STRATEGIES.items():
        limit = next((ranks for ranks in RANKS[1:] if _stops(project(work, network, ranks))), None)
        parts.append(f"{name} from {limit} ranks on" if limit else f"{name} not up to {RANKS[-1]} ranks")
    reached = f"exposed communication exceeds {units.percent(STOPS_ABOVE)} of the step with"
    text = f"{MARK}: {reached} {'; with '.join(parts)}."
    return [*said("projection", [text], Evidence.of([group], *PHASE_KEYS)), *_checked(results, group, work)]


def _checked(results: Results, group: Group, work: Work) -> list[Finding]:
    """Compare the model with measured steps, with the fits of this machine's own collectives as its network."""
    ranks = group.point["ranks"]
    fits = [chosen(results.others.get("collectives"), each, ranks) for each in ("all_reduce", "all_gather")]
    fit = next((each for each in fits if each is not None), None)
    if fit is None:
        return []
    network = _as_network(fit)
    measured = {
        "data parallel": results.group(strategy="bucketed"),
        "sharded optimizer": _other(results, "optimizer_sharding", SHARDED, group),
        "FSDP": _other(results, "fsdp", FULLY, group),
    }
    parts, used = [], []
    for name, other in measured.items():
        summary = other.summary("step_s") if other else None
        if other is not None and summary is not None:
            step = STRATEGIES[name](work, network, ranks)
            parts.append(f"{name} {units.ratio(step.seconds / summary.median)}")
            used.append(other)
    if not parts:
        return []
    text = (
        f"With latency and bandwidth of this machine's own {axis_words(fit.operation)} the same model gives for "
        f"{ranks} ranks, over the measured step: {listing(parts)}. Below 1 it is too optimistic, as expected where "
        "ranks share cores and cannot overlap."
    )
    return said("model check", [text], Evidence.of([group, *used], "step_s", *PHASE_KEYS))


def _as_network(fit: Fit) -> Network:
    """Return a network on which a ring takes what the fit of an operation says."""
    half = 2 if fit.operation == "all_reduce" else 1
    steps = half * (fit.ranks - 1)
    link = Link(fit.latency_s / steps, fit.bytes_per_s * steps / fit.ranks)
    return Network(fit.ranks, link, link)


def _other(results: Results, experiment: str, variant: str, like: Group) -> Group | None:
    other = results.others.get(experiment)
    shared = {axis: like.point[axis] for axis in ("size", "context", "batch", "ranks")}
    return other.group(variant=variant, **shared) if other else None


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
