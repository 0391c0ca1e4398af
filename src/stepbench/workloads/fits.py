"""How much batch and context of a decoder's step fit into how much memory, from predictions of shallow steps."""

from __future__ import annotations

import dataclasses

from stepbench.measure import envelope
from stepbench.measure.envelope import Envelope
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.models.architecture import Architecture
from stepbench.models.sizes import ModelSize
from stepbench.workloads import predicted
from stepbench.workloads.spec import StepSpec

# In groups of blocks: each half of a phase then has a group that is neither the first nor the last. A smaller last
# group pushes the halves apart by most of a group.
PERIODS, PERIODS_AND_REST = (3, 4), (4, 5)


def find(spec: StepSpec, setting: Setting) -> Envelope:
    """Return the predicted peak of such a step at any batch and context; those of `spec` are not used.

    Raises:
        UnsupportedError: the step cannot be predicted, or not from others.
    """
    if isinstance(spec.size, ModelSize):
        layers, of_depth = spec.size.layers, {depth: spec.shrunk(depth) for depth in depths(spec, spec.size.layers)}
    else:  # nobody knows whether the blocks of a model of the user's own are alike
        layers, of_depth = 1, {1: spec}
    timelines = {
        depth: [predicted.predict(_at(step, *point), setting) for point in envelope.points()]
        for depth, step in of_depth.items()
    }
    try:
        found = envelope.fit(timelines, layers)
    except envelope.StructureError as error:
        raise UnsupportedError(
            f"attention {spec.attention} with head {spec.head} cannot be predicted from smaller steps: {error}"
        ) from None
    positions = Architecture.of(spec.size).positions if isinstance(spec.size, ModelSize) else 0
    return dataclasses.replace(found, most_context=positions or None)


def depths(spec: StepSpec, layers: int) -> list[int]:
    """Return the numbers of blocks that are predicted: two small ones, or that of the model where it is as small.

    Checkpointed groups repeat as blocks do, and what is left over for a smaller last group stays the same.
    """
    period = spec.groups[0] if spec.groups else 1
    rest = layers % period
    shallow = [periods * period + rest for periods in (PERIODS_AND_REST if rest else PERIODS)]
    return shallow if shallow[-1] < layers else [layers]


def _at(spec: StepSpec, batch: int, context: int) -> StepSpec:
    return dataclasses.replace(spec, batch=batch, context=context)
