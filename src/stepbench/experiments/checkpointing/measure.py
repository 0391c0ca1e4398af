"""What does computing activations again buy, and what does it cost?"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from stepbench.experiments.checkpointing.cell import Cell
from stepbench.measure import clock, saved_tensors, training_step
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError
from stepbench.measure.memory_timeline import Timeline
from stepbench.models.checkpointing import theoretical_best
from stepbench.models.layers import rotary_angles
from stepbench.models.training import AUTOCAST
from stepbench.versions import FakeTensorMode
from stepbench.workloads import decoder_step, watched_step
from stepbench.workloads.decoder_step import Shape


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Time the step, then watch the memory of a second one, and list what a block alone would keep."""
    blocks = setting.definition["size"]["layers"]
    shape = decoder_step.Shape(cell.context, cell.batch, cell.precision, group_sizes=_group_sizes(cell, blocks))
    decoder_step.check_fit(setting, shape)
    steps = {key: setting.protocol[key] for key in ("warmup_steps", "measured_steps")}
    timer = clock.for_device(setting.device)
    step = decoder_step.make(setting, shape, steps=steps["warmup_steps"] + 2 * steps["measured_steps"])
    samples: dict[str, Any] = training_step.measure(step.phases, clock=timer, **steps)
    samples["loss_nats"] = step.loss_values()
    del step  # the second one gets the memory to itself
    timeline = watched_step.watch(setting, shape).timeline
    return Measurement(
        samples=samples,
        scalars={
            "blocks": blocks,
            "theoretical_best_blocks": theoretical_best(blocks),
            **_activation_bytes(timeline),
            **timeline.scalars(),
        },
        details={"timeline": timeline.details(), "saved_by_one_block": _saved_by_one_block(setting, shape)},
        protocol={
            **steps,
            "clock": timer.name,
            "effective_threads": torch.get_num_threads(),
            "optimizer": shape.optimizer,
        },
    )


def _group_sizes(cell: Cell, blocks: int) -> tuple[int, ...]:
    """Return the sizes of the groups, from the outermost.

    Raises:
        UnsupportedError: this model cannot be grouped so.
    """
    sizes = tuple(size for size in (cell.blocks_per_checkpoint, cell.nested) if size is not None)
    if cell.nested is not None and cell.blocks_per_checkpoint is None:
        raise UnsupportedError(f"nested groups need groups to be in, got blocks_per_checkpoint none, nested {sizes[0]}")
    if any(outer <= inner for outer, inner in zip((blocks + 1, *sizes), (*sizes, 0), strict=True)):
        raise UnsupportedError(f"groups of {blocks} blocks must get smaller, down to 1, got {list(sizes)}")
    return sizes


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


def _saved_by_one_block(setting: Setting, shape: Shape) -> list[dict[str, Any]]:
    """Return what one block keeps for the backward pass where it is not checkpointed, by operation; on fake tensors."""
    one_block = {**setting.definition, "size": setting.definition["size"] | {"layers": 1}}
    alone = dataclasses.replace(setting, definition=one_block)
    with FakeTensorMode():
        model = decoder_step.make(alone, dataclasses.replace(shape, group_sizes=()), steps=0).model
        size, block = model.size, model.blocks[0]
        x_BTC = torch.empty(shape.batch, shape.context, size.d_model, device=setting.device, requires_grad=True)
        dtype = AUTOCAST.get(shape.precision)
        angles = rotary_angles(
            shape.context, size.head_dim, theta=model.rope_theta, dtype=x_BTC.dtype, device=x_BTC.device
        )
        with torch.autocast(setting.device, dtype=dtype, enabled=dtype is not None):
            output = block(x_BTC, *angles)
        found = saved_tensors.by_operation(output, without=[*block.parameters(), *angles])
    return [dataclasses.asdict(each) for each in found]
