"""The projection held against measured steps, and by how much it was off.

Twice: with the fit of this machine's own collectives as the network, which tells whether the model of a step is right;
and across nodes with the network that config.yaml states, which is the projection that somebody may have relied on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from stepbench.experiments.data_parallel import projection
from stepbench.experiments.data_parallel.network import Link, Network
from stepbench.experiments.data_parallel.projected_step import STRATEGIES
from stepbench.reporting import units
from stepbench.reporting.columns import RECORDS, axis_words, value, warned
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, listing, said
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import Fit, chosen, groups_of
from stepbench.reporting.points import Group, Row
from stepbench.reporting.tables import Table

SHARDED, FULLY = "sharded_broadcast", "fsdp"
SHARED = ("size", "context", "batch", "precision")


def table(results: Results) -> Table:
    """Return the model beside measured steps: on this machine's own network, and across nodes as projected."""
    rows = [row for row, _ in _checks(results)]
    columns = [
        value("name", "strategy", numeric=False),
        value("ranks"),
        value("nodes"),
        value("projected_s", "by the model", units.seconds),
        value("measured_s", "measured step", units.seconds),
        value("over_measured_ratio", "model over measured", units.ratio),
        value("stated_s", "by the projection", _or_nothing(units.seconds), droppable=True),
        value("stated_over_measured_ratio", "projection over measured", _or_nothing(units.ratio), droppable=True),
    ]
    caption = (
        "The model of the projection with this machine's own network: the fit of its all-reduce, or of its all-gather; "
        "on several nodes also with the network that config.yaml states, which is the projection itself. Computation "
        "is the measured step without communication."
    )
    empty = "There is no fit of a collective, or no measured step to hold against it."
    return Table("The projection's model against measured steps", caption, rows, columns, empty)


def _checks(results: Results) -> list[tuple[dict[str, Any], tuple[Group, ...]]]:
    """Return the rows of the table, each with the points that it rests on."""
    places = sorted({(each.point["nodes"], each.point["ranks"]) for each in results.groups() if each.records})
    return [row for nodes, ranks in places for row in _checks_on(results, ranks, nodes)]


def _checks_on(results: Results, ranks: int, nodes: int) -> list[tuple[dict[str, Any], tuple[Group, ...]]]:
    """Return the rows of some ranks on some nodes."""
    found, collectives = projection.basis(results), results.others.get("collectives")
    if found is None:
        return []
    group, work = found
    fits = [chosen(collectives, each, ranks, nodes) for each in ("all_reduce", "all_gather")]
    fit = next((each for each in fits if each is not None), None)
    fitted = groups_of(collectives, fit) if collectives is not None and fit is not None else []
    networks = {"projected": _as_network(fit) if fit else None, "stated": _stated(results, ranks, nodes)}
    place = {"ranks": ranks, "nodes": nodes}
    shared = {axis: group.point[axis] for axis in SHARED}
    measured = {
        "data parallel": results.group(strategy="bucketed", **shared, **place),
        "sharded optimizer": _other(results, "optimizer_sharding", SHARDED, group, place),
        "FSDP": _other(results, "fsdp", FULLY, group, place),
    }
    rows = []
    for name, other in measured.items():
        summary = other.summary("step_s") if other else None
        steps = {kind: STRATEGIES[name](work, each, ranks) for kind, each in networks.items() if each is not None}
        if other is None or summary is None or not steps:
            continue
        used = (group, other, *fitted)
        row: dict[str, Any] = {"name": name, **place, "measured_s": summary.median}
        row["operation"] = fit.operation if fit else None
        for kind, key in (("projected", "over_measured_ratio"), ("stated", "stated_over_measured_ratio")):
            step = steps.get(kind)
            row |= {f"{kind}_s": step.seconds if step else None, key: step.seconds / summary.median if step else None}
        row |= {**warned(summary.marks), RECORDS: {"": [path for each in used for path in each.paths]}}
        rows.append((row, used))
    return rows


def _stated(results: Results, ranks: int, nodes: int) -> Network | None:
    """Return the network of config.yaml with as many ranks on a node as were measured; None on one node, as given."""
    network = projection.network_of(results)
    return dataclasses.replace(network, ranks_per_node=ranks // nodes) if network and nodes > 1 else None


def find(results: Results) -> list[Finding]:
    """Say how near the model comes to measured steps, for each place where some were measured."""
    by_place: dict[tuple[int, int], list[tuple[dict[str, Any], tuple[Group, ...]]]] = {}
    for row, groups in _checks(results):
        by_place.setdefault((row["nodes"], row["ranks"]), []).append((row, groups))
    return [finding for (nodes, ranks), found in by_place.items() for finding in _told(found, ranks, nodes)]


def _told(found: list[tuple[dict[str, Any], tuple[Group, ...]]], ranks: int, nodes: int) -> list[Finding]:
    used = {tuple(group.paths): group for _, groups in found for group in groups}
    evidence = Evidence.of(used.values(), "step_s", "call_s", *projection.PHASE_KEYS)
    across = f" on {nodes} nodes" if nodes > 1 else ""
    sentences = []
    if fitted := [row for row, _ in found if row["operation"]]:
        parts = [f"{row['name']} {units.ratio(row['over_measured_ratio'])}" for row in fitted]
        expected = "" if across else ", as expected where ranks share cores and cannot overlap"
        sentences.append(
            f"With latency and bandwidth of this machine's own {axis_words(fitted[0]['operation'])} the same model "
            f"gives for {ranks} ranks{across}, over the measured step: {listing(parts)}. Below 1 it is too "
            f"optimistic{expected}."
        )
    if parts := [_off(row) for row, _ in found if row["stated_s"] is not None]:
        sentences.append(
            f"{projection.MARK} against measurement, {ranks} ranks{across}: with the network of config.yaml "
            f"{listing(parts, ';')}."
        )
    return said("model check", sentences, evidence)


def _off(row: Row) -> str:
    """Say by how much the projection of a measured step was off."""
    ratio = row["stated_over_measured_ratio"]
    off = f"{units.percent(abs(ratio - 1))} too {'long' if ratio > 1 else 'short'}"
    told = f"{row['name']} was projected to take {units.seconds(row['stated_s'])} and took"
    return f"{told} {units.seconds(row['measured_s'])} ({off})"


def _or_nothing(text: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda found: "" if found is None else text(found)


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
