"""The tables of the training step: by size, by context, by pass, what is compared, and every cell."""

from __future__ import annotations

from stepbench.experiments.end_to_end import pivots
from stepbench.experiments.end_to_end import reference as points
from stepbench.experiments.end_to_end.reference import COMPARED, REFERENCE, reference
from stepbench.reporting import comparisons, steps
from stepbench.reporting.frames import Results
from stepbench.reporting.tables import Table

PASSES = ("forward", "forward_backward", "train_step")


def by_size(results: Results) -> Table:
    """Return one training step for each size."""
    return steps.table(
        points.by_size(results.groups()),
        results.peaks,
        name="by_size",
        title="A training step by model size",
        caption=f"MFU: {steps.FLOP_CONVENTION}; {_peaks_named(results)}.",
        empty="The grid has no training step in the reference variant.",
        wide=True,
    )


def by_context(results: Results) -> Table:
    """Return every size and context of the reference variant."""
    return steps.table(
        reference(results.groups()),
        results.peaks,
        name="by_context",
        title="A training step by context length",
        caption="Every size and context of the reference variant.",
        empty="The grid has no training step in the reference variant.",
    )


def passes(results: Results) -> Table:
    """Return forward alone, with backward, and the whole step, side by side."""
    return pivots.table(
        reference(results.groups(), passes=None),
        "passes",
        PASSES,
        name="passes",
        title="Forward alone, with backward, and the whole training step",
        caption="Whole passes, each measured in processes of its own; ratios are to the column before.",
        empty="The grid has no point with more than one kind of pass.",
    )


def precision(results: Results) -> Table:
    """Return each precision against fp32."""
    return _comparison(results, "precision", "precision")


def compile(results: Results) -> Table:  # noqa: A001 - the table's name
    """Return compiled against eager."""
    return _comparison(results, "implementation", "compile")


def attention(results: Results) -> Table:
    """Return each attention against the naive one."""
    return _comparison(results, "attention", "attention")


def every_cell(results: Results) -> Table:
    """Return all points of the grid."""
    return steps.table(
        results.groups(),
        results.peaks,
        name="every_cell",
        title="Every cell",
        caption="All points of the grid, replicates taken together.",
        empty="The grid has no cell.",
    )


def _comparison(results: Results, axis: str, name: str) -> Table:
    return comparisons.table(
        comparisons.pairs(results, axis, REFERENCE[axis]),
        name=name,
        title=f"{COMPARED[axis]}: against {REFERENCE[axis]}",
        caption="Whole steps of points that differ in this axis alone.",
        empty=f"The grid compares nothing with {REFERENCE[axis]} along the axis {axis}.",
    )


def _peaks_named(results: Results) -> str:
    fastest = "that of the fastest matrix product of its dtype in ceilings, or of fp32 where that is faster"
    measured = fastest if results.peaks.measured else "not known, since ceilings has no fresh record"
    vendor = results.peaks.vendor_source
    told = f"from {vendor}" if vendor else "not known for this device"
    return f"the measured peak is {measured}; the vendor's peak is {told}"
