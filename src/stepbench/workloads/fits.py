"""How much batch and context of a decoder's step fit into how much memory, from predictions of shallow steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from stepbench.kernels.heads import api as heads
from stepbench.kernels.heads.contract import Range
from stepbench.measure import envelope
from stepbench.measure.envelope import Envelope, Piece, Points
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.measure.memory_timeline import Timeline
from stepbench.models.architecture import Architecture
from stepbench.models.sizes import ModelSize
from stepbench.workloads import predicted, rank_step
from stepbench.workloads.spec import StepSpec

# In groups of blocks: before and after a phase's middle there is then a group that is neither the first nor the last. A
# smaller last group needs one more, and so do weights that are gathered a group ahead.
PERIODS = 3


def find(spec: StepSpec, setting: Setting) -> Envelope:
    """Return the predicted peak of such a step at any batch and context; those of `spec` are not used.

    Of several ranks it is that of one, and the batch is a rank's.

    Raises:
        UnsupportedError: the step cannot be predicted, or not from others.
    """
    if isinstance(spec.size, ModelSize):
        layers, of_depth = spec.size.layers, {depth: spec.shrunk(depth) for depth in depths(spec, spec.size.layers)}
    else:  # nobody knows whether the blocks of a model of the user's own are alike
        layers, of_depth = 1, {1: spec}
    try:
        pieces = tuple(_piece(each, of_depth, layers, setting) for each in heads.ranges(spec.head))
    except envelope.StructureError as error:
        raise UnsupportedError(
            f"attention {spec.attention} with head {spec.head} cannot be predicted from smaller steps: {error}"
        ) from None
    positions = Architecture.of(spec.size).positions if isinstance(spec.size, ModelSize) else 0
    return Envelope(pieces, positions or None)


def _piece(tokens: Range, of_depth: Mapping[int, StepSpec], layers: int, setting: Setting) -> Piece:
    """Return the peak within a range of tokens, from the steps of few blocks."""
    timelines: dict[int, list[Timeline]] = {}
    points = Points(tokens.batches, tokens.contexts)
    with tokens.within():
        for depth, spec in of_depth.items():
            predict = rank_step.must_predict if spec.strategy else predicted.predict
            timelines[depth] = [predict(_at(spec, *point), setting) for point in points.each()]
    return Piece(tokens.most_tokens, envelope.fit(timelines, layers, points))


def depths(spec: StepSpec, layers: int) -> list[int]:
    """Return the numbers of blocks that are predicted: two small ones, or that of the model where it is as small.

    Checkpointed groups repeat as blocks do, and what is left over for a smaller last group stays the same.
    """
    period = spec.groups[0] if spec.groups else 1
    rest = layers % period
    periods = PERIODS + (rest > 0) + (spec.strategy is not None)
    shallow = [count * period + rest for count in (periods, periods + 1)]
    return shallow if shallow[-1] < layers else [layers]


def _at(spec: StepSpec, batch: int, context: int) -> StepSpec:
    return dataclasses.replace(spec, batch=batch, context=context)
