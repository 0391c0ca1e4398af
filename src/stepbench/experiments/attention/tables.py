"""The table of one attention operator: times, rates, memory and errors of each implementation."""

from __future__ import annotations

import functools
from typing import Any

from stepbench.experiments.attention import kernel_table
from stepbench.experiments.attention.slices import PASSES
from stepbench.reporting import units
from stepbench.reporting.frames import Group, Results
from stepbench.reporting.tables import MARKS, STATUS, Column, Row, Table, axis_columns, facts, frame, held_constant

GRADIENTS = ("dq", "dk", "dv")


def attention(results: Results) -> Table:
    """Return one row for each point of the grid, whether it has numbers or not."""
    groups = results.groups()
    rows = [_row(group) for group in groups]
    axes = list(groups[0].point) if groups else []
    columns = [*axis_columns(rows, axes)]
    for each in PASSES:
        columns += [
            Column(f"{each} (ms)", functools.partial(_middle, name=each)),
            Column(f"{each} rate", functools.partial(_rate, name=each)),
        ]
    columns += [
        Column("saved for backward", lambda row: units.byte_count(row["saved_bytes"])),
        Column("peak device memory", lambda row: units.byte_count(row["peak_memory_bytes"]), droppable=True),
        Column("error of o", lambda row: _error(row, "o")),
        Column("error of gradients", lambda row: _error(row, "gradients")),
        MARKS,
        STATUS,
    ]
    caption = (
        "Medians with their 95 % intervals. Forward passes keep what the backward pass needs. Rates count the two "
        "matrix products of the forward and the five of the backward pass, half of each under a causal mask. "
        "Saved for backward: every tensor that autograd holds, inputs included. Errors: the largest distance to "
        "float64, in brackets that of a plain computation in the same dtype. " + held_constant(rows, axes)
    )
    empty = "The grid has no attention operator."
    return Table("attention", "One attention operator", caption.strip(), frame(rows), columns, empty)


def kernels(_results: Results) -> Table:
    """Return what the project's own Triton kernels compile to, whatever was measured."""
    return kernel_table.table("kernels")


def _row(group: Group) -> dict[str, Any]:
    found: dict[str, Any] = {}
    marks: list[object] = []
    for each in PASSES:
        summary, work = group.summary(f"{each}_s"), group.scalar(f"{each}_flops")
        found |= {
            f"{each}_s": summary.median if summary else None,
            f"{each}_low_s": summary.low if summary else None,
            f"{each}_high_s": summary.high if summary else None,
            f"{each}_flops_per_s": work / summary.median if summary and work and summary.median else None,
        }
        marks += [f"{each} {mark}" for mark in summary.marks if mark not in group.marks] if summary else []
    found |= {key: group.scalar(key) for key in ("saved_bytes", "peak_memory_bytes", "o_error", "o_plain_error")}
    for kind in ("error", "plain_error"):
        errors = [error for each in GRADIENTS if (error := group.scalar(f"{each}_{kind}")) is not None]
        found[f"gradients_{kind}"] = max(errors, default=None)
    return facts(group, marks) | found


def _middle(row: Row, name: str) -> str:
    return units.middle(row[f"{name}_s"], row[f"{name}_low_s"], row[f"{name}_high_s"], per=1e-3)


def _rate(row: Row, name: str) -> str:
    return units.flop_rate(row[f"{name}_flops_per_s"])


def _error(row: Row, name: str) -> str:
    error, plain = row[f"{name}_error"], row[f"{name}_plain_error"]
    return units.NOTHING if error is None else f"{units.scientific(error)} ({units.scientific(plain)})"
