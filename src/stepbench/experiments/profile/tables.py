"""The tables of the profile experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stepbench.experiments.profile import operators as ops
from stepbench.experiments.profile.operators import (
    ADDS_UP_WITHIN,
    ATTENTION_PARTS,
    BOOKKEEPING,
    MATRIX_PRODUCTS,
    OUTSIDE,
    Phase,
)
from stepbench.reporting import markup, units
from stepbench.reporting.findings import listing
from stepbench.reporting.frames import Group, Results
from stepbench.reporting.marks import Mark
from stepbench.reporting.tables import (
    MARKS,
    RECORDS,
    STATUS,
    Column,
    Row,
    Table,
    axis_columns,
    facts,
    frame,
    held_constant,
    or_dash,
    value,
)

TOP = 8
WHOLE_STEP = "whole step"
_PER_STEP = "Counts and times are per step."


def phases(results: Results) -> Table:
    """Return one row for each phase of each cell, and one for its step: times, shares, calls, whether it adds up."""
    rows = [row for group in results.groups() for row in _phase_rows(group)]
    columns = [
        *_points(rows, results),
        value("phase", text=or_dash, numeric=False),
        Column("profiled", lambda row: units.seconds(row["profiled_s"])),
        Column("matrix products", lambda row: units.percent(row["matrix_ratio"])),
        Column("views and bookkeeping", lambda row: units.percent(row["bookkeeping_ratio"])),
        Column("outside of operators", lambda row: units.percent(row["outside_ratio"])),
        Column("operators called", lambda row: ops.count(row["calls"])),
        Column("sum of the phases over the step", lambda row: units.ratio(row["sum_ratio"])),
        Column("profiled over not profiled", lambda row: units.ratio(row["slowdown_ratio"])),
        MARKS,
        STATUS,
    ]
    told = (
        "Shares are of the phase's time under the profiler, which slows a step down. Views and bookkeeping is what "
        "moves no data: views, allocations, autograd's own nodes. Outside of operators are Python and, on a GPU, the "
        f"times when it waits. {_PER_STEP} {_constant(rows, results)}"
    ).strip()
    return Table("phases", "Phases under the profiler", told, frame(rows), columns, "The grid has no cell.")


def attention(results: Results) -> Table:
    """Return one row for each phase of each cell whose attention is told apart: scores, softmax and values."""
    rows = []
    for group, phase in _every_phase(results):
        parts = ops.attention(group, phase)
        if parts:
            seconds = {f"{part}_s": parts.get(part) for part in ATTENTION_PARTS}
            total = sum(parts.values())
            rows.append(_at(group, phase) | seconds | {"share_ratio": total / phase.seconds})
    columns = [
        *_points(rows, results),
        value("phase", text=markup.escape, numeric=False),
        *(_part_column(part) for part in ATTENTION_PARTS),
        Column("share of the phase", lambda row: units.percent(row["share_ratio"])),
    ]
    told = (
        "Time inside of naive attention, all blocks together: the scores with scale and mask, the softmax, and the "
        "product with the values. In the backward pass a node counts where the operator ran that it belongs to. "
        f"{_constant(rows, results)}"
    ).strip()
    empty = "No cell tells the parts of attention apart; compiled attention cannot."
    return Table("attention", "Inside attention", told, frame(rows), columns, empty)


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
        value("phase", text=markup.escape, numeric=False),
        value("operator", text=markup.escape, numeric=False),
        Column("calls", lambda row: ops.count(row["calls"])),
        Column("time", lambda row: units.seconds(row["time_s"])),
        Column("share of the phase", lambda row: units.percent(row["share_ratio"])),
        value("kind", text=markup.escape, numeric=False),
    ]
    told = (
        f"The {TOP} that take the most time in each phase: of their kernels where there is a device, otherwise on the "
        f"host without the operators that they call. {_PER_STEP} {_constant(rows, results)}"
    ).strip()
    return Table("operators", "Top operators", told, frame(rows), columns, "No cell has numbers.")


def kernels(results: Results) -> Table:
    """Return the kernels that take the most time in each phase of each cell, with the operator that launches each."""
    rows = []
    for group, phase in _every_phase(results):
        found = [each for each in group.records[0].details["kernels"] if each["phase"] == phase.name]
        rows += [
            _at(group, phase)
            | {"kernel": each["name"], "operator": each["operator"], "calls": each["calls"]}
            | {"device_s": each["device_s"], "share_ratio": each["device_s"] / phase.seconds}
            for each in found[:TOP]
        ]
    columns = [
        *_points(rows, results),
        value("phase", text=markup.escape, numeric=False),
        value("kernel", text=markup.escape, numeric=False),
        value("operator", "launched by", markup.escape, numeric=False),
        Column("calls", lambda row: ops.count(row["calls"])),
        Column("time", lambda row: units.seconds(row["device_s"])),
        Column("share of the phase", lambda row: units.percent(row["share_ratio"])),
    ]
    told = f"The {TOP} that take the most of the device's time. {_PER_STEP} {_constant(rows, results)}".strip()
    empty = "No kernel was launched on an accelerator; the operators are the work."
    return Table("kernels", "Top kernels", told, frame(rows), columns, empty)


def nsys(results: Results) -> Table:
    """Return the kernels that nsys saw; where there are none, say why."""
    rows, reasons = [], []
    for group in results.groups():
        seen = group.records[0].details["nsys"] if group.records else {"reason": "it has no numbers"}
        if "reason" in seen:
            reasons.append(str(seen["reason"]))
            continue
        for each in sorted(seen["kernels"], key=lambda kernel: -kernel["device_s"])[:TOP]:
            per_step = {"calls": each["calls"] / seen["steps"], "device_s": each["device_s"] / seen["steps"]}
            links = {RECORDS: {"": group.paths}}
            rows.append({**group.point, "kernel": each["name"], **per_step, "report": seen["report"], **links})
    columns = [
        *_points(rows, results),
        value("kernel", text=markup.escape, numeric=False),
        Column("calls", lambda row: ops.count(row["calls"])),
        Column("time", lambda row: units.seconds(row["device_s"])),
        value("report", text=or_dash, numeric=False),
    ]
    told = (
        f"The same steps in a process of their own under Nsight Systems, warm-up excluded; the report lies beside the "
        f"record. {_PER_STEP} {_constant(rows, results)}"
    ).strip()
    why = listing(list(dict.fromkeys(reasons))) if reasons else "the grid has no cell"
    return Table("nsys", "Kernels as Nsight Systems saw them", told, frame(rows), columns, f"There is none: {why}.")


def _adds_up(group: Group) -> list[Mark]:
    """Return a mark if the profiled phases do not add up to the profiled step."""
    ratio = ops.sum_over_step(group)
    if ratio is None or abs(ratio - 1) <= ADDS_UP_WITHIN:
        return []
    return [Mark("parts and whole differ", f"the phases' sum is {units.ratio(ratio)} the step")]


def _phase_rows(group: Group) -> list[dict[str, Any]]:
    found = ops.phases(group)
    rows = [_shares(phase.name, phase.seconds, phase.by_kind(), phase.calls) for phase in found]
    step = _shares(WHOLE_STEP, ops.profiled_s(group), ops.whole(found), sum(each.calls for each in found))
    step |= {"sum_ratio": ops.sum_over_step(group), "slowdown_ratio": ops.slowdown(group)}
    told = [facts(group, _adds_up(group)) | row for row in [*rows, step]]
    return told if found else [facts(group) | _shares(None, None, {}, None)]


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
    return {**group.point, "phase": phase.name, RECORDS: {"": group.paths}}


def _points(rows: Sequence[Row], results: Results) -> list[Column]:
    return axis_columns(rows, [axis for axis in results.axes if axis != "replicate"]) if rows else []


def _constant(rows: Sequence[Row], results: Results) -> str:
    return held_constant(rows, [axis for axis in results.axes if axis != "replicate"])


def _part_column(part: str) -> Column:
    text: Callable[[Row], str] = lambda row: units.seconds(row[f"{part}_s"])  # noqa: E731
    return Column(part, text)
