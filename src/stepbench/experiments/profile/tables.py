"""The tables of a profile: phases, attention, operators, kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepbench.experiments.profile import operators as ops
from stepbench.experiments.profile.operators import (
    ATTENTION_PARTS,
    BOOKKEEPING,
    MATRIX_PRODUCTS,
    OUTSIDE,
    Phase,
)
from stepbench.reporting import columns as col
from stepbench.reporting import units
from stepbench.reporting.findings import listing
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group, Row
from stepbench.reporting.tables import Table

TOP = 8
WHOLE_STEP = "whole step"
_PER_STEP = "Counts and times are per step."
_TIME_COLUMNS = (col.value("calls", text=ops.count), col.value("time_s", "time", units.seconds))
_SHARE = col.value("share_ratio", "share of the phase", units.percent)


def phases(results: Results) -> Table:
    """Return one row for each phase of each cell, and one for its step: times, shares, calls, sum of phases."""
    rows = [row for group in results.groups() for row in _phase_rows(group)]
    columns = [
        *_points(rows, results),
        col.word("phase"),
        col.value("profiled_s", "profiled", units.seconds),
        col.value("matrix_ratio", MATRIX_PRODUCTS, units.percent),
        col.value("bookkeeping_ratio", BOOKKEEPING, units.percent),
        col.value("outside_ratio", OUTSIDE, units.percent),
        col.value("calls", "operator calls", ops.count),
        col.value("sum_ratio", "sum of phases over step", units.ratio),
        col.value("slowdown_ratio", "profiled over not profiled", units.ratio),
        col.WARNINGS,
        col.STATUS,
    ]
    caption = (
        "Shares are of the phase's time under the profiler, which slows a step down. Views and bookkeeping move no "
        "data: views, allocations, autograd's own nodes. Framework overhead lies outside every operator: the Python "
        f"interpreter, and on a GPU idle time. {_PER_STEP}"
    )
    return Table("Phases under the profiler", caption, rows, columns, held=col.rest(results.axes))


def attention(results: Results) -> Table:
    """Return one row for each phase of each cell whose attention was recorded by part: scores, softmax, values."""
    rows = []
    for group, phase in _every_phase(results):
        parts = ops.attention(group, phase)
        if parts:
            seconds = {f"{part}_s": parts.get(part) for part in ATTENTION_PARTS}
            rows.append(_at(group, phase) | seconds | {"share_ratio": sum(parts.values()) / phase.seconds})
    columns = [
        *_points(rows, results),
        col.word("phase"),
        *(col.value(f"{part}_s", part, units.seconds) for part in ATTENTION_PARTS),
        _SHARE,
    ]
    caption = (
        "Time inside naive attention, all blocks together: the scores with scale and mask, the softmax, and the "
        "product with the values. A node of the backward pass counts for the part of its forward operator."
    )
    empty = "No cell has the parts of attention; compiled attention has none."
    return Table("Inside attention", caption, rows, columns, empty, col.rest(results.axes))


def operators(results: Results) -> Table:
    """Return the operators that take the most time in each phase of each cell."""
    rows = [
        _at(group, phase)
        | {"operator": each["name"], "calls": each["calls"], "time_s": phase.time(each)}
        | {"self_s": each["self_s"], "device_s": each["device_s"]}
        | {"share_ratio": phase.time(each) / phase.seconds, "kind": ops.kind_of(each["name"])}
        for group, phase in _every_phase(results)
        for each in phase.top(TOP)
    ]
    columns = [
        *_points(rows, results),
        col.word("phase"),
        col.word("operator"),
        *_TIME_COLUMNS,
        _SHARE,
        col.word("kind"),
    ]
    caption = (
        f"The {TOP} operators that take the most time in each phase: the time of their kernels if there is a device, "
        f"otherwise their time on the host without the operators that they call. {_PER_STEP}"
    )
    return Table("Top operators", caption, rows, columns, "No cell has numbers.", col.rest(results.axes))


def kernels(results: Results) -> Table:
    """Return the kernels that take the most time in each phase of each cell, with the operator that launches each."""
    rows = []
    for group, phase in _every_phase(results):
        found = [each for each in group.records[0].details["kernels"] if each["phase"] == phase.name]
        rows += [
            _at(group, phase)
            | {"kernel": each["name"], "operator": each["operator"], "calls": each["calls"]}
            | {"time_s": each["device_s"], "share_ratio": each["device_s"] / phase.seconds}
            for each in found[:TOP]
        ]
    columns = [
        *_points(rows, results),
        col.word("phase"),
        col.word("kernel"),
        col.word("operator", "launched by"),
        *_TIME_COLUMNS,
        _SHARE,
    ]
    caption = f"The {TOP} kernels that take the most of the device's time. {_PER_STEP}"
    empty = "No kernel ran on an accelerator; see the operators."
    return Table("Top kernels", caption, rows, columns, empty, col.rest(results.axes))


def nsys(results: Results) -> Table:
    """Return the kernels that nsys recorded; if there are none, say why."""
    rows, reasons = [], []
    for group in results.groups():
        seen = group.records[0].details["nsys"] if group.records else {"reason": "a cell has no numbers"}
        if "reason" in seen:
            reasons.append(str(seen["reason"]))
            continue
        for each in sorted(seen["kernels"], key=lambda kernel: -kernel["device_s"])[:TOP]:
            per_step = {"calls": each["calls"] / seen["steps"], "time_s": each["device_s"] / seen["steps"]}
            links = {col.RECORDS: {"": group.paths}}
            rows.append({**group.point, "kernel": each["name"], **per_step, "report": seen["report"], **links})
    columns = [*_points(rows, results), col.word("kernel"), *_TIME_COLUMNS, col.word("report")]
    caption = (
        "The same steps in a process of their own under Nsight Systems, without warm-up; the report lies beside the "
        f"record. {_PER_STEP}"
    )
    why = listing(list(dict.fromkeys(reasons))) if reasons else "the grid has no cell"
    return Table("Kernels in Nsight Systems", caption, rows, columns, f"No kernels: {why}.", col.rest(results.axes))


def _phase_rows(group: Group) -> list[dict[str, Any]]:
    found = ops.phases(group)
    rows = [_shares(phase.name, phase.seconds, phase.by_kind(), phase.calls) for phase in found]
    step = _shares(WHOLE_STEP, ops.profiled_s(group), ops.whole(found), sum(each.calls for each in found))
    step |= {"sum_ratio": ops.sum_over_step(group), "slowdown_ratio": ops.slowdown(group)}
    told = [col.facts(group, ops.adds_up(group)) | row for row in [*rows, step]]
    return told if found else [col.facts(group) | _shares(None, None, {}, None)]


def _shares(name: str | None, seconds: float | None, kinds: dict[str, float], calls: float | None) -> dict[str, Any]:
    total = sum(kinds.values())
    shares = {key: kinds[kind] / total if total else None for key, kind in _SHOWN.items()} if kinds else {}
    return {
        "phase": name,
        "profiled_s": seconds,
        **dict.fromkeys(_SHOWN),
        **shares,
        "calls": calls,
        "sum_ratio": None,
        "slowdown_ratio": None,
    }


_SHOWN = {"matrix_ratio": MATRIX_PRODUCTS, "bookkeeping_ratio": BOOKKEEPING, "outside_ratio": OUTSIDE}


def _every_phase(results: Results) -> list[tuple[Group, Phase]]:
    return [(group, phase) for group in results.groups() for phase in ops.phases(group)]


def _at(group: Group, phase: Phase) -> dict[str, Any]:
    return {**group.point, "phase": phase.name, col.RECORDS: {"": group.paths}}


def _points(rows: Sequence[Row], results: Results) -> list[col.Column]:
    return col.axis_columns(rows, col.rest(results.axes)) if rows else []
