"""The phases of a training step, and how its samples add up."""

from __future__ import annotations

import statistics

from stepbench.reporting.points import Group
from stepbench.reporting.sense import WHOLE as WHOLE
from stepbench.reporting.sense import flops as flops

ENERGY = (
    "Energy: by the counter of the GPU, or of the CPU's packages with all that runs on them, over a second and more of "
    "steps; without the host of a GPU."
)
ENERGY_ON_RANKS = (
    "Energy: of a step on the GPUs of all ranks together, each by its own counter, or of the CPU's packages with all "
    "that runs on them, over a second and more of steps; without the hosts of GPUs."
)
PHASES = ("forward", "backward", "optimizer")
FLOP_FORMULA = (
    "the FLOPs of the forward pass are 2·tokens·(layers·(4·d_model² + 3·d_model·d_ff) + vocabulary·d_model) + "
    "4·layers·tokens·context·d_model, those of the backward pass twice that: matrix products alone, a multiply-add is 2"
)


def energy_joules(group: Group) -> float | None:
    """Return the energy of a step, the median of the processes that counted it, or None where none did."""
    found = [record.scalars.get("step_energy_joules") for record in group.records]
    told = [each for each in found if isinstance(each, int | float)]
    return statistics.median(told) if told else None


def token_energy_joules(group: Group) -> float | None:
    """Return the energy of a token, or None where it is not known."""
    step, tokens = energy_joules(group), group.scalar("tokens_per_step")
    return step / tokens if step is not None and tokens else None


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
