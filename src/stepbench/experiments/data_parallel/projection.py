"""The projection of a step's time to more ranks: its table, its figure, its findings; a model, not a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from stepbench.experiments.data_parallel.network import Network
from stepbench.experiments.data_parallel.projected_step import STOPS_ABOVE, STRATEGIES, Work, efficiency, stops
from stepbench.reporting import figures, units
from stepbench.reporting.columns import RECORDS, Column, value
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, said
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group, Row
from stepbench.reporting.tables import Table

RANKS = tuple(2**power for power in range(13))
ACTIVATION_BYTES = {"bf16": 2, "fp16": 2}
MARK = "PROJECTION"
PHASE_KEYS = ("forward_s", "backward_s", "optimizer_s")


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
    """Return from how many ranks on communication is exposed."""
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
    return said("projection", [text], Evidence.of([group], *PHASE_KEYS))


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
