"""What does computing activations again buy, and what does it cost?"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from stepbench.experiments.checkpointing.cell import Cell
from stepbench.measure import saved_tensors
from stepbench.measure.measurement import Measurement, Setting
from stepbench.measure.memory_timeline import Timeline
from stepbench.models.checkpointing import blocks_of, theoretical_best
from stepbench.models.precision import AUTOCAST
from stepbench.versions import FakeTensorMode, tree_leaves
from stepbench.workloads import decoders, predicted, step, timed, watched
from stepbench.workloads.spec import StepSpec


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Predict the step's bytes; or time the step, then watch the memory of a second one. List what a block keeps."""
    spec = StepSpec.of(cell, setting)
    if cell.source == "predicted":
        timeline, found = predicted.predict(spec, setting), Measurement()
        protocol = {"watched_by": predicted.WATCHED_BY, "optimizer": spec.optimizer, "attention": spec.attention}
    else:
        found = timed.measure(spec, setting)
        timeline = watched.watch(spec, setting).timeline
        protocol = {"watched_by": watched.WATCHED_BY, **found.protocol}
    blocks, saved = _blocks(spec, setting)
    return Measurement(
        samples=found.samples,
        scalars={
            **found.scalars,
            "blocks": blocks,
            "theoretical_best_blocks": theoretical_best(blocks),
            **_activation_bytes(timeline),
            **timeline.scalars(),
        },
        details={"timeline": timeline.details(), "saved_by_one_block": saved},
        protocol=protocol,
    )


def _activation_bytes(timeline: Timeline) -> dict[str, int]:
    """Return what activations take at the most in forward and backward pass, and what is kept between the two.

    At the most counts all that is neither parameter nor gradient nor optimizer state, what is computed again included.
    """
    passes = {span.name: span for span in timeline.spans}
    passing = ("activations", "temporary")
    return {
        "peak_activation_bytes": max(timeline.highest(passing, passes[name]) for name in ("forward", "backward")),
        "kept_activation_bytes": timeline.after(passes["forward"])["activations"],
    }


def _blocks(spec: StepSpec, setting: Setting) -> tuple[int, list[dict[str, Any]]]:
    """Return how many blocks there are, and what one keeps for the backward pass where it is not checkpointed.

    By operation; on fake tensors, or on real ones where code of the user's own needs values.
    """
    try:
        with FakeTensorMode():
            return _saved(spec, setting)
    except Exception:
        if not spec.runs_own_code:
            raise
    return _saved(spec, setting)


def _saved(spec: StepSpec, setting: Setting) -> tuple[int, list[dict[str, Any]]]:
    """Return what `_blocks` does; a block is called again with what the model calls it with."""
    model = decoders.build(dataclasses.replace(spec, groups=()), setting)
    parent, attribute = blocks_of(model)
    blocks = list(getattr(parent, attribute))
    block, called = blocks[0], []
    handle = block.register_forward_pre_hook(lambda _, *given: called.append(given), with_kwargs=True)
    inputs, targets = next(step.feed(spec, setting))
    dtype = AUTOCAST.get(spec.autocast_precision)
    autocast = torch.autocast(setting.device, dtype=dtype, enabled=dtype is not None)
    with autocast, torch.no_grad():
        model(inputs.to(setting.device), targets.to(setting.device))
    handle.remove()
    positional, named = called[0]
    x_BTC = positional[0].detach().requires_grad_()
    given: list[Any] = [x_BTC, *positional[1:]]
    with torch.autocast(setting.device, dtype=dtype, enabled=dtype is not None):
        output = block(*given, **named)
    output = output[0] if isinstance(output, tuple) else output
    tensors = [each for each in tree_leaves((given[1:], named)) if isinstance(each, torch.Tensor)]
    found = saved_tensors.by_operation(output, without=[*block.parameters(), *tensors])
    return len(blocks), [dataclasses.asdict(each) for each in found]
