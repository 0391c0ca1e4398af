"""The phases of a training step, and how its samples add up."""

from __future__ import annotations

from stepbench.reporting.points import Group
from stepbench.reporting.sense import WHOLE as WHOLE
from stepbench.reporting.sense import flops as flops

PHASES = ("forward", "backward", "optimizer")
FLOP_FORMULA = (
    "the FLOPs of the forward pass are 2·tokens·(layers·(4·d_model² + 3·d_model·d_ff) + vocabulary·d_model) + "
    "4·layers·tokens·context·d_model, those of the backward pass twice that: matrix products alone, a multiply-add is 2"
)


def phase_sums(group: Group) -> list[list[float]]:
    """Return for each process the sum of a step's phases, step by step.

    For warm-up this is the number to look at: the whole steps are timed after those by phases, when the process is
    warm however few warm-up steps it had.
    """
    found = []
    for record in group.records:
        present = [record.samples[f"{phase}_s"] for phase in PHASES if record.samples.get(f"{phase}_s")]
        if present:
            found.append([sum(step) for step in zip(*present, strict=True)])
    return found
