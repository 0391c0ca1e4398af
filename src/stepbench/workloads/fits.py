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
from stepbench.models import hugging_face
from stepbench.models.architecture import Architecture
from stepbench.models.own import OwnModel
from stepbench.models.sizes import ModelSize
from stepbench.workloads import examined, predicted, rank_step
from stepbench.workloads.spec import StepSpec

# In groups of blocks: before and after a phase's middle there is then a group that is neither the first nor the last. A
# smaller last group needs one more, and so do weights that are gathered a group ahead.
PERIODS = 3
# How far a step of a model of the user's own may be from what smaller ones tell of it.
OWN_TOLERANCE_RATIO = 0.01
OWN_CONTEXTS = (64, 256, 1024)
OWN_CHECKED = (5, 2048)  # its batch and its context, above all others


def find(spec: StepSpec, setting: Setting) -> Envelope:
    """Return the predicted peak of such a step at any batch and context; those of `spec` are not used.

    Of several ranks it is that of one, and the batch is a rank's.

    Raises:
        UnsupportedError: the step cannot be predicted, or not from others.
    """
    most_context = _most_context(spec)
    if isinstance(spec.size, ModelSize):
        layers, of_depth = spec.size.layers, {depth: spec.shrunk(depth) for depth in depths(spec, spec.size.layers)}
    else:  # nobody knows whether the blocks of a model of the user's own are alike
        layers, of_depth = 1, {1: spec}
    try:
        pieces = tuple(_piece(each, of_depth, layers, setting, most_context) for each in heads.ranges(spec.head))
        found = Envelope(pieces, most_context)
        if isinstance(spec.size, OwnModel):
            _check_own(found, spec, setting)
    except envelope.StructureError as error:
        whose = f"attention {spec.attention} with head {spec.head}"
        if isinstance(spec.size, OwnModel):
            whose = f"`{spec.size.source}`"
        raise UnsupportedError(f"{whose} cannot be predicted from smaller steps: {error}") from None
    return found


def _most_context(spec: StepSpec) -> int | None:
    """Return the longest context of a model, whatever the memory, or None."""
    if isinstance(spec.size, ModelSize):
        return Architecture.of(spec.size).positions or None
    if spec.size.hf is not None:
        return hugging_face.positions_of(spec.size)
    return examined.most_context(spec.size, vocabulary=spec.vocabulary)


def _check_own(found: Envelope, spec: StepSpec, setting: Setting) -> None:
    """Hold one more step against the envelope: nobody knows what sizes depend on in a model of the user's own.

    Raises:
        envelope.StructureError: the envelope misses it.
    """
    batch, context = OWN_CHECKED
    context = min(context, found.most_context or context)
    predict = rank_step.must_predict if spec.strategy else predicted.predict
    peak = predict(_at(spec, batch, context), setting).scalars()["peak_memory_bytes"]
    expected = found.peak_bytes(batch, context)
    if abs(expected / peak - 1) > OWN_TOLERANCE_RATIO:
        raise envelope.StructureError(
            f"at batch {batch} and context {context} they tell {expected} bytes, and its own code allocates {peak}"
        )


def _contexts(tokens: Range, most_context: int | None, *, own: bool) -> tuple[int, ...]:
    """Return the contexts that are predicted: those of the range, or shorter ones where a model has no such."""
    contexts = OWN_CONTEXTS if own else tokens.contexts
    if most_context is None or contexts[-1] <= most_context or tokens.most_tokens is not None:
        return contexts
    return tuple(dict.fromkeys(max(1, most_context * each // contexts[-1]) for each in contexts))


def _piece(
    tokens: Range, of_depth: Mapping[int, StepSpec], layers: int, setting: Setting, most_context: int | None
) -> Piece:
    """Return the peak within a range of tokens, from the steps of few blocks."""
    timelines: dict[int, list[Timeline]] = {}
    own = any(isinstance(spec.size, OwnModel) for spec in of_depth.values())
    points = Points(tokens.batches, _contexts(tokens, most_context, own=own))
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
