"""What do forward pass, backward pass and optimizer cost, end to end?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stepbench.experiments.experiment import Experiment
from stepbench.kernels.names import Name
from stepbench.measure.measurement import Measurement, Setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from stepbench.reporting.frames import Group, Results
    from stepbench.reporting.tables import Table


@dataclass(frozen=True)
class EndToEnd:
    """A decoder of one size, trained or run in one way."""

    size: str
    context: int
    batch: int = 4
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    implementation: Literal["eager", "compiled"] = "eager"
    attention: Name = "naive"
    passes: Literal["forward", "forward_backward", "train_step"] = "train_step"
    replicate: int = 0


def measure(cell: EndToEnd, setting: Setting) -> Measurement:
    """Time forward, backward and optimizer of a decoder, and the whole step."""
    from stepbench.experiments import _decoder_step

    return _decoder_step.measure(
        setting,
        context=cell.context,
        batch=cell.batch,
        precision=cell.precision,
        implementation=cell.implementation,
        attention=cell.attention,
        passes=cell.passes,
        warmup_steps=setting.protocol["warmup_steps"],
    )


# -- what is told of it; nothing above uses what is below, so that no number goes stale with a table's layout ----------

REFERENCE = {"precision": "fp32", "implementation": "eager", "attention": "naive"}
PASSES = ("forward", "forward_backward", "train_step")
STEP_IN_THE_ROOFLINE = (
    "Solid: measured in ceilings; dashed: the vendor's figure where it is known. A step stands where it would be if "
    "weights, gradients and optimizer state were all that it moves; activations move it to the left."
)
COMPARED = {
    "precision": "Precision",
    "implementation": "Compilation",
    "attention": "Attention",
}


def tabulate(results: Results) -> list[Table]:
    """Return the field's tables: by size, by context, by pass, what is compared, and every cell."""
    from stepbench.reporting import pivots, steps

    groups = results.groups()
    told = f"MFU: {steps.FLOP_CONVENTION}; {_peaks_named(results)}."
    return [
        steps.table(
            _by_size(groups),
            results.peaks,
            name="by_size",
            title="A training step by model size",
            caption=told,
            empty="The grid has no training step in the reference variant.",
            wide=True,
        ),
        steps.table(
            _reference(groups),
            results.peaks,
            name="by_context",
            title="A training step by context length",
            caption="Every size and context of the reference variant.",
            empty="The grid has no training step in the reference variant.",
        ),
        pivots.table(
            _reference(groups, passes=None),
            "passes",
            PASSES,
            name="passes",
            title="Forward alone, with backward, and the whole training step",
            caption="Whole passes, each measured in processes of its own; ratios are to the column before.",
            empty="The grid has no point with more than one kind of pass.",
        ),
        *(_comparison(results, axis) for axis in COMPARED),
        steps.table(
            groups,
            results.peaks,
            name="every_cell",
            title="Every cell",
            caption="All points of the grid, replicates taken together.",
            empty="The grid has no cell.",
        ),
    ]


def plot(results: Results) -> dict[str, Figure]:
    """Return the phases by size, the scaling over context, the ratios of what is compared, and the roofline."""
    from stepbench.reporting import comparison_figures, comparisons, roofline, step_figures, tables

    groups = results.groups()
    by_size, reference = _by_size(groups), _reference(groups)

    def constant(shown: Sequence[Group]) -> str:
        points = [group.point for group in shown]
        return tables.held_constant(points, points[0] if points else ())

    panels = {title: comparisons.pairs(results, axis, REFERENCE[axis]) for axis, title in COMPARED.items()}
    told = [pair.other for pairs in comparison_figures.shown(panels).values() for pair in pairs]
    return {
        "phases": step_figures.phases(by_size, constant(by_size)),
        "context": step_figures.scaling(reference, "context", "context length (tokens)", constant(reference)),
        "speedups": comparison_figures.ratios(panels, constant(told)),
        "roofline": roofline.draw(results.peaks, roofline.steps(groups), STEP_IN_THE_ROOFLINE),
    }


def find(results: Results) -> list[str]:
    """Return what dominates, how time grows with context, and what is faster than what."""
    from stepbench.reporting import comparisons, findings, step_findings

    groups = results.groups()
    found = step_findings.dominant_phase(_by_size(groups))
    found += step_findings.backward_over_forward(_by_size(groups))
    found += step_findings.scaling(_reference(groups), "context")
    found += step_findings.utilisation(_reference(groups), results.peaks)
    for axis in COMPARED:
        found += findings.comparison(comparisons.pairs(results, axis, REFERENCE[axis]))
    return found


def _reference(groups: Sequence[Group], passes: str | None = "train_step") -> list[Group]:
    """Return the points of the reference variant: each axis' usual value, or its first where the grid lacks that."""
    wanted = REFERENCE | ({"passes": passes} if passes else {})
    for axis, value in wanted.items():
        values = list(dict.fromkeys(group.point[axis] for group in groups))
        chosen = value if value in values else next(iter(values), None)
        groups = [group for group in groups if group.point[axis] == chosen]
    return list(groups)


def _by_size(groups: Sequence[Group]) -> list[Group]:
    """Return one point for each size: at the context that most sizes have, the middle one of several such."""
    reference = _reference(groups)
    sizes: dict[int, set[str]] = {}
    for group in reference:
        sizes.setdefault(group.point["context"], set()).add(group.point["size"])
    most = max(map(len, sizes.values()), default=0)
    common = sorted(context for context, found in sizes.items() if len(found) == most)
    shown: dict[str, Group] = {}
    for group in sorted(reference, key=lambda group: group.point["context"] != common[(len(common) - 1) // 2]):
        shown.setdefault(group.point["size"], group)
    order = list(dict.fromkeys(group.point["size"] for group in reference))
    return [shown[size] for size in order]


def _comparison(results: Results, axis: str) -> Table:
    from stepbench.reporting import comparisons

    return comparisons.table(
        comparisons.pairs(results, axis, REFERENCE[axis]),
        name={"implementation": "compile"}.get(axis, axis),
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


EXPERIMENT = Experiment(
    name="end_to_end",
    title="End to end",
    question="What do forward pass, backward pass and optimizer cost, end to end?",
    cell=EndToEnd,
    measure=measure,
    settings=("protocol", "vocabulary", "data"),
    table_names=("by_size", "by_context", "passes", "precision", "compile", "attention", "every_cell"),
    tabulate=tabulate,
    figure_names=("phases", "context", "speedups", "roofline"),
    plot=plot,
    find=find,
    also_reads=("ceilings",),
)
