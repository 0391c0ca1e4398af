"""The tables of one attention operator: times, rates, memory and errors; what the kernels compile to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepbench import architectures
from stepbench.experiments.attention import kernel_table
from stepbench.experiments.attention.slices import PASSES
from stepbench.reporting import columns as col
from stepbench.reporting import leaderboard as shared_leaderboard
from stepbench.reporting import marks, units
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group, Row
from stepbench.reporting.tables import Table
from stepbench.reporting.units import Unit

GRADIENTS = ("dq", "dk", "dv")
SHOWN = {**{each: each for each in PASSES}, "forward_backward": "forward + backward"}
MILLISECOND = Unit("ms", 1e-3)


def attention(results: Results) -> Table:
    """Return one row for each point of the grid, whether it has numbers or not."""
    groups = results.groups()
    rows = [_row(group) for group in groups]
    axes = list(groups[0].point) if groups else []
    columns = col.axis_columns(rows, axes)
    for each, heading in SHOWN.items():
        rate = col.value(f"{each}_flops_per_s", f"{heading} rate", units.flop_rate)
        columns += [col.interval(each, MILLISECOND, heading), rate]
    columns += [
        col.value("saved_bytes", "saved for backward", units.byte_count),
        col.value("peak_memory_bytes", "peak device memory", units.byte_count, droppable=True),
        col.Column("error of o", lambda row: _error(row, "o")),
        col.Column("error of gradients", lambda row: _error(row, "gradients")),
        col.WARNINGS,
        col.STATUS,
    ]
    caption = (
        "Medians with their 95 % intervals. Forward + backward is timed as one call. "
        "The forward pass saves what the backward pass needs. Rates count the two "
        "matrix products of the forward and the five of the backward pass, half of each under a causal mask. Saved for "
        "backward: every tensor that autograd holds, inputs included. Errors: the largest distance to float64, in "
        "brackets that of a plain computation in the same dtype; over all heads, or as many as the row says. "
        "Peak device memory: inputs and what both passes allocate, without what the libraries hold."
    )
    return Table("One attention operator", caption, rows, columns, held=axes)


def kernels(results: Results) -> Table:
    """Return the resources of the project's own Triton kernels on the GPU that was measured, or on the usual ones."""
    return kernel_table.table(architectures.table_of(_capability(results)))


def limits(_results: Results) -> Table:
    """Return what limits them on an H100, predicted from their code, whatever was measured."""
    return kernel_table.limits_table()


def leaderboard(results: Results) -> Table:
    """Return the public leaderboard of this operator with what is predicted of ours and what was measured here."""
    board = shared_leaderboard.read("experiments/attention/leaderboard.json")
    shown = shared_leaderboard.groups(board, results)
    rows = [
        *shared_leaderboard.published(board),
        *(shared_leaderboard.predicted(*each) for each in kernel_table.predicted_calls(board["shape"])),
        *(shared_leaderboard.measured(group, "forward_backward_s", shown) for group in shown),
    ]
    caption = (
        "Forward and backward pass as one call, bf16, causal, 16 heads of 64, 16 384 tokens. Predicted: our Triton "
        "kernels on an H100, from their code (see the kernels' limits), ±15 %. To measure it on a GPU: "
        "make leaderboard-attention SCALE=gpu."
    )
    return shared_leaderboard.table(board, rows, title="The public leaderboard of attention", caption=caption)


def _capability(results: Results) -> str | None:
    """Return the compute capability that the records hold, of the first device; None where none tells it."""
    for row in results.rows:
        found = row["record"].environment.get("devices") if row["record"] is not None else None
        if isinstance(found, list) and found and isinstance(found[0], Mapping):
            return found[0].get("capability")
    return None


def _row(group: Group) -> dict[str, Any]:
    found: dict[str, Any] = {}
    warnings = []
    for each in SHOWN:
        summary, work = group.summary(f"{each}_s"), group.scalar(f"{each}_flops")
        found |= col.statistics_of(each, summary)
        found[f"{each}_flops_per_s"] = work / summary.median if summary and work and summary.median else None
        own = [mark for mark in summary.marks if mark not in group.marks] if summary else []
        warnings += marks.about(SHOWN[each], own)
    scalars = ("saved_bytes", "peak_memory_bytes", "o_error", "o_plain_error", "checked_heads")
    found |= {key: group.scalar(key) for key in scalars}
    for kind in ("error", "plain_error"):
        errors = [error for each in GRADIENTS if (error := group.scalar(f"{each}_{kind}")) is not None]
        found[f"gradients_{kind}"] = max(errors, default=None)
    return col.facts(group, warnings) | found


def _error(row: Row, name: str) -> str:
    error, plain = row[f"{name}_error"], row[f"{name}_plain_error"]
    if error is None:
        return units.NOTHING
    some, every = row["checked_heads"], row["batch"] * row["heads"]
    of_some = "" if some in (None, every) else f"; {some} of {every} heads"
    return f"{units.scientific(error)} ({units.scientific(plain)}){of_some}"
