"""The tables of fits: largest batches, largest contexts, and the edges that were tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepbench.experiments.fits import ways
from stepbench.experiments.fits.ways import BATCH, CONTEXT, Way
from stepbench.reporting import columns as col
from stepbench.reporting import markup, units
from stepbench.reporting.frames import Results
from stepbench.reporting.tables import Table

PREDICTED = "Predicted: the allocations of the step's own code on fake tensors, as a function of batch and context."
EMPTY = "No prediction has numbers."


def batches(results: Results) -> Table:
    """Return the largest batch on each card, a row for each way to train each model."""
    return _on_cards(
        results,
        f"Largest batch at context {CONTEXT}",
        f"The largest batch whose training step fits into the memory of a card at context {CONTEXT}. The peak is that "
        f"of batch {BATCH}.",
        lambda way, memory_bytes: way.envelope.largest_batch(CONTEXT, memory_bytes),
    )


def contexts(results: Results) -> Table:
    """Return the largest context on each card, a row for each way to train each model."""
    return _on_cards(
        results,
        f"Largest context at batch {BATCH}",
        f"The largest context whose training step fits into the memory of a card at batch {BATCH}. The peak is that "
        f"of context {CONTEXT}.",
        lambda way, memory_bytes: way.envelope.largest_context(BATCH, memory_bytes),
    )


def edges(results: Results) -> Table:
    """Return each edge that was tried beside its prediction."""
    rows = []
    for group in ways.edges(results):
        limit, needed = group.scalar("limit_bytes"), group.scalar("predicted_edge_bytes")
        last, expected = group.scalar("largest_batch"), group.scalar("predicted_largest_batch")
        rows.append(
            col.facts(group)
            | {
                "parameters": group.scalar("parameters"),
                "limit_bytes": limit,
                "predicted_largest_batch": expected,
                "largest_batch": last,
                "first_failing_batch": group.scalar("first_failing_batch"),
                "difference_ratio": expected / last - 1 if last else None,
                "predicted_edge_bytes": needed,
            }
        )
    columns = [
        col.size(),
        *col.axis_columns(rows, ["context", *ways.AXES]),
        col.value("limit_bytes", "limit", units.byte_count),
        col.word("predicted_largest_batch", "predicted to be the last that fits"),
        col.word("largest_batch", "ran"),
        col.word("first_failing_batch", "did not run"),
        col.value("difference_ratio", "predicted − tried", units.difference),
        col.value("predicted_edge_bytes", "predicted peak of the last that ran", units.byte_count),
        col.STATUS,
    ]
    caption = (
        "Steps that ran, and the next larger batch that did not, within a limit on memory: on a GPU the caching "
        "allocator refused the latter, on a CPU the allocator's peak was above the limit."
    )
    return Table("Edges tried", caption, rows, columns, "The grid tries no edge.", ["context", *ways.AXES])


def _on_cards(results: Results, title: str, caption: str, largest: Callable[[Way, int], int]) -> Table:
    memory = ways.device(results) | ways.cards(results.settings)
    rows = [
        col.facts(way.group)
        | {"parameters": way.group.scalar("parameters"), "peak_bytes": way.peak_bytes}
        | {f"on {name}": largest(way, memory_bytes) for name, memory_bytes in memory.items()}
        for way in ways.predicted(results)
    ]
    if any(row["ranks"] > 1 for row in rows):
        caption += " With several ranks (FSDP) batch and bytes are those of one rank."
    columns = [
        col.size(),
        *col.axis_columns(rows, ways.AXES),
        col.value("peak_bytes", "peak", units.byte_count),
        *(_count(name) for name in memory),
    ]
    return Table(title, f"{caption} {ways.HEADROOM} {PREDICTED}", rows, columns, EMPTY, ways.AXES)


def _count(name: str) -> col.Column:
    def text(found: Any) -> str:
        return str(found) if found else units.NOTHING

    return col.value(f"on {name}", markup.escape(name), text)
