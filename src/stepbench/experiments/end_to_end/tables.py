"""The tables of the training step: by size, by context, by passes, comparisons, and every cell."""

from __future__ import annotations

from stepbench.experiments.end_to_end import passes_table, step_table
from stepbench.experiments.end_to_end import reference as points
from stepbench.experiments.end_to_end.reference import COMPARED, REFERENCE, reference
from stepbench.reporting import agreement, comparisons
from stepbench.reporting.frames import Results
from stepbench.reporting.tables import Table

NO_STEP = "The grid has no training step in the reference variant."


def by_size(results: Results) -> Table:
    """Return one training step for each size."""
    return step_table.table(
        points.by_size(results.groups()),
        results.peaks,
        title="A training step by model size",
        caption=f"MFU: {step_table.FLOP_CONVENTION}; {_peaks_named(results)}.",
        empty=NO_STEP,
        wide=True,
    )


def by_context(results: Results) -> Table:
    """Return every size and context of the reference variant."""
    return step_table.table(
        reference(results.groups()),
        results.peaks,
        title="A training step by context length",
        caption="Every size and context of the reference variant.",
        empty=NO_STEP,
    )


def passes(results: Results) -> Table:
    """Return the forward pass alone, with the backward pass, and the whole step, side by side."""
    return passes_table.table(
        reference(results.groups(), passes=None),
        title="Forward pass alone, with backward pass, and the whole training step",
        caption="Each was measured as a whole and in processes of its own; ratios are to the column before.",
        empty="The grid has no point with more than one kind of pass.",
    )


def agreements(results: Results) -> Table:
    """Return what two kinds of cells measured of the same phase or step."""
    return agreement.table(
        points.agreements(results),
        "A phase inside of a longer step and by itself, and a step in other experiments. A forward pass by itself runs "
        "without autograd.",
    )


def precision(results: Results) -> Table:
    """Return each precision against fp32."""
    return _comparison(results, "precision")


def compile(results: Results) -> Table:  # noqa: A001 - the table's name
    """Return compiled against eager."""
    return _comparison(results, "implementation")


def attention(results: Results) -> Table:
    """Return each attention against the naive one."""
    return _comparison(results, "attention")


def head(results: Results) -> Table:
    """Return each head and loss against all logits at once."""
    return _comparison(results, "head")


def every_cell(results: Results) -> Table:
    """Return all points of the grid."""
    return step_table.table(
        results.groups(),
        results.peaks,
        title="Every cell",
        caption="All points of the grid, replicates taken together.",
        empty="The grid has no cell.",
    )


def _comparison(results: Results, axis: str) -> Table:
    return comparisons.table(
        comparisons.pairs(results, axis, REFERENCE[axis]),
        title=f"{COMPARED[axis]}: against {REFERENCE[axis]}",
        caption="Whole steps that differ in this axis alone.",
        empty=f"The grid compares nothing with {REFERENCE[axis]} along the axis {axis}.",
    )


def _peaks_named(results: Results) -> str:
    fastest = "the fastest matrix product of the same dtype (see the machine's peaks), or of fp32 if that is faster"
    measured = fastest if results.peaks.measured else "unknown, because there is no fresh record of it"
    vendor = results.peaks.vendor_source
    return f"measured peak: {measured}; vendor's peak: {f'from {vendor}' if vendor else 'unknown for this device'}"
