"""The projection of a step's time to more ranks: its table, its figure, its findings; a model, not a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from stepbench.experiments.data_parallel.network import Link, Network
from stepbench.experiments.data_parallel.projected_step import STOPS_ABOVE, STRATEGIES, Work, efficiency, stops
from stepbench.reporting import figures, units
from stepbench.reporting.columns import RECORDS, Column, axis_words, value, warned
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, listing, said
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import Fit, chosen, groups_of
from stepbench.reporting.points import Group, Row
from stepbench.reporting.tables import Table

RANKS = tuple(2**power for power in range(13))
ACTIVATION_BYTES = {"bf16": 2, "fp16": 2}
MARK = "PROJECTION"
PHASE_KEYS = ("forward_s", "backward_s", "optimizer_s")
SHARDED, FULLY = "sharded_broadcast", "fsdp"


def basis(results: Results) -> tuple[Group, Work] | None:
    """Return the largest measured step without communication, and what it comes to."""
    found = [
        (group.scalar("parameters"), group)
        for group in results.groups()
        if group.records
        and group.point["nodes"] == 1
        and group.point["strategy"] in ("none", "bucketed")
        and group.scalar("parameters")
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
        heads=size["heads"],
    )


def network_of(results: Results) -> Network | None:
    """Return the network that config.yaml states, or None."""
    return Network.of(results.settings.get("network"))


def table(results: Results) -> Table:
    """Return one row for each number of ranks: the step of each strategy, and its scaling efficiency."""
    title = f"{MARK}: the step on more ranks"
    found, network = basis(results), network_of(results)
    if found is None or network is None:
        why = "config.yaml states no network" if network is None else "no step has been measured"
        return Table(title, "", [], empty=f"There is no projection, because {why}.")
    group, work = found
    rows = [_row(work, network, ranks) | {RECORDS: {"": group.paths}} for ranks in RANKS]
    columns = [value("ranks"), *(_column(name) for name in STRATEGIES)]
    caption = (
        f"{MARK}, not measured, from the step of {_described(group)}. {network.in_words()} The step's time, and in "
        "brackets the scaling efficiency: tokens/s per rank over those of one rank. Assumptions: perfect overlap, and "
        f"no other traffic. {_limits(work, rows)}"
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
        steps = {ranks: step for ranks in RANKS if (step := project(work, network, ranks)) is not None}
        shares = [100 * efficiency(work, step, ranks) for ranks, step in steps.items()]
        color, marker = figures.PALETTE[place], figures.MARKERS[place]
        axes.plot(list(steps), shares, marker=marker, color=color, label=name, linestyle="--")
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
        steps = {ranks: step for ranks in RANKS[1:] if (step := project(work, network, ranks)) is not None}
        limit = next((ranks for ranks, step in steps.items() if stops(step)), None)
        if not steps:
            parts.append(f"{name} never, because it cannot divide {work.heads} heads")
        else:
            parts.append(f"{name} from {limit} ranks on" if limit else f"{name} not up to {max(steps)} ranks")
    reached = f"exposed communication exceeds {units.percent(STOPS_ABOVE)} of the step with"
    text = f"{MARK}: {reached} {'; with '.join(parts)}."
    return [*said("projection", [text], Evidence.of([group], *PHASE_KEYS)), *_checked(results)]


def check(results: Results) -> Table:
    """Return the same model beside measured steps, with the fit of this machine's own collectives as its network."""
    rows = [row for row, _ in _checks(results)]
    columns = [
        value("name", "strategy", numeric=False),
        value("ranks"),
        value("nodes"),
        value("projected_s", "by the model", units.seconds),
        value("measured_s", "measured step", units.seconds),
        value("over_measured_ratio", "model over measured", units.ratio),
    ]
    caption = (
        "The model of the projection with this machine's own network: the fit of its all-reduce, or of its all-gather. "
        "Computation is the measured step without communication."
    )
    empty = "There is no fit of a collective, or no measured step to hold against it."
    return Table("The projection's model against measured steps", caption, rows, columns, empty)


def _checks(results: Results) -> list[tuple[dict[str, Any], tuple[Group, ...]]]:
    """Return the rows of `check`, each with the points that it rests on."""
    places = sorted({(each.point["nodes"], each.point["ranks"]) for each in results.groups() if each.records})
    return [row for nodes, ranks in places for row in _checks_on(results, ranks, nodes)]


def _checks_on(results: Results, ranks: int, nodes: int) -> list[tuple[dict[str, Any], tuple[Group, ...]]]:
    """Return the rows of some ranks on some nodes, with the fit of their own collectives as the model's network."""
    found, collectives = basis(results), results.others.get("collectives")
    if found is None or collectives is None:
        return []
    group, work = found
    fits = [chosen(collectives, each, ranks, nodes) for each in ("all_reduce", "all_gather")]
    fit = next((each for each in fits if each is not None), None)
    if fit is None:
        return []
    network, fitted = _as_network(fit), groups_of(collectives, fit)
    place = {"ranks": ranks, "nodes": nodes}
    measured = {
        "data parallel": results.group(strategy="bucketed", **place),
        "sharded optimizer": _other(results, "optimizer_sharding", SHARDED, group, place),
        "FSDP": _other(results, "fsdp", FULLY, group, place),
    }
    rows = []
    for name, other in measured.items():
        summary, step = other.summary("step_s") if other else None, STRATEGIES[name](work, network, ranks)
        if other is not None and summary is not None and step is not None:
            used = (group, other, *fitted)
            row = {"name": name, **place, "operation": fit.operation}
            row |= {"projected_s": step.seconds, "measured_s": summary.median}
            row |= {"over_measured_ratio": step.seconds / summary.median, **warned(summary.marks)}
            rows.append((row | {RECORDS: {"": [path for each in used for path in each.paths]}}, used))
    return rows


def _checked(results: Results) -> list[Finding]:
    """Say how near the model comes to measured steps, for each place where some were measured."""
    by_place: dict[tuple[int, int], list[tuple[dict[str, Any], tuple[Group, ...]]]] = {}
    for row, groups in _checks(results):
        by_place.setdefault((row["nodes"], row["ranks"]), []).append((row, groups))
    return [finding for (nodes, ranks), found in by_place.items() for finding in _told(found, ranks, nodes)]


def _told(found: list[tuple[dict[str, Any], tuple[Group, ...]]], ranks: int, nodes: int) -> list[Finding]:
    parts = [f"{row['name']} {units.ratio(row['over_measured_ratio'])}" for row, _ in found]
    across = f" on {nodes} nodes" if nodes > 1 else ""
    text = (
        f"With latency and bandwidth of this machine's own {axis_words(found[0][0]['operation'])} the same model gives "
        f"for {ranks} ranks{across}, over the measured step: {listing(parts)}. Below 1 it is too optimistic, as "
        "expected where ranks share cores and cannot overlap."
    )
    used = {tuple(group.paths): group for _, groups in found for group in groups}
    return said("model check", [text], Evidence.of(used.values(), "step_s", "call_s", *PHASE_KEYS))


def _as_network(fit: Fit) -> Network:
    """Return a network on which a ring takes what the fit of an operation says."""
    half = 2 if fit.operation == "all_reduce" else 1
    steps = half * (fit.ranks - 1)
    link = Link(fit.latency_s / steps, fit.bytes_per_s * steps / fit.ranks)
    return Network(fit.ranks, link, link)


def _other(results: Results, experiment: str, variant: str, like: Group, place: Mapping[str, int]) -> Group | None:
    other = results.others.get(experiment)
    shared = {axis: like.point[axis] for axis in ("size", "context", "batch")}
    return other.group(variant=variant, **shared, **place) if other else None


def _row(work: Work, network: Network, ranks: int) -> dict[str, Any]:
    row: dict[str, Any] = {"ranks": ranks, "projected": True}
    for name, project in STRATEGIES.items():
        step = project(work, network, ranks)
        row |= {f"{name}_s": step.seconds if step else None, f"{name}_exposed_s": step.exposed_s if step else None}
        row[f"{name}_efficiency_ratio"] = efficiency(work, step, ranks) if step else None
    return row


def _limits(work: Work, rows: Sequence[Row]) -> str:
    """Return where tensor parallelism ends, and why efficiencies exceed 100 % where they do."""
    most = max(ranks for ranks in RANKS if work.heads % ranks == 0)
    told = f"Tensor parallelism divides the {work.heads} heads, and ends at {most} of these numbers of ranks."
    if any((row[f"{name}_efficiency_ratio"] or 0) > 1 for row in rows for name in STRATEGIES):
        told += (
            " Efficiencies above 100 %: one rank alone updates all parameters, and each of n ranks of a sharded "
            "optimizer an n-th of them."
        )
    return told


def _column(name: str) -> Column:
    def text(row: Row) -> str:
        seconds, share = row[f"{name}_s"], row[f"{name}_efficiency_ratio"]
        return units.NOTHING if seconds is None else f"{units.seconds(seconds)} ({units.percent(share)})"

    return Column(name, text)


def _described(group: Group) -> str:
    point = group.point
    return f"{point['size']}, context {point['context']}, batch {point['batch']} per rank, {point['precision']}"
