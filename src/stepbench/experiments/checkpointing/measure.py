"""What does computing activations again buy, and what does it cost?"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from stepbench.experiments.checkpointing.cell import Cell
from stepbench.measure import saved_tensors
from stepbench.measure.measurement import Measurement, Setting
from stepbench.measure.memory_timeline import Timeline
from stepbench.models.checkpointing import theoretical_best
from stepbench.models.layers import rotary_angles
from stepbench.models.precision import AUTOCAST
from stepbench.versions import FakeTensorMode
from stepbench.workloads import predicted, step, timed, watched
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
    return Measurement(
        samples=found.samples,
        scalars={
            **found.scalars,
            "blocks": spec.size.layers,
            "theoretical_best_blocks": theoretical_best(spec.size.layers),
            **_activation_bytes(timeline),
            **timeline.scalars(),
        },
        details={"timeline": timeline.details(), "saved_by_one_block": _saved_by_one_block(spec, setting)},
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


def _saved_by_one_block(spec: StepSpec, setting: Setting) -> list[dict[str, Any]]:
    """Return what one block keeps for the backward pass where it is not checkpointed, by operation; on fake tensors."""
    alone = dataclasses.replace(spec, size=dataclasses.replace(spec.size, layers=1), groups=())
    with FakeTensorMode():
        model = step.decoder(alone, setting)
        block = model.blocks[0]
        shape, like = (spec.batch, spec.context, spec.size.d_model), next(block.parameters())
        x_BTC = torch.empty(shape, dtype=like.dtype, device=like.device, requires_grad=True)
        dtype = AUTOCAST.get(spec.autocast_precision)
        angles = rotary_angles(x_BTC, spec.size.head_dim)
        with torch.autocast(setting.device, dtype=dtype, enabled=dtype is not None):
            output = block(x_BTC, *angles)
        found = saved_tensors.by_operation(output, without=[*block.parameters(), *angles])
    return [dataclasses.asdict(each) for each in found]
