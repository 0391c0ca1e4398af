"""A decoder's step that runs while its allocator is watched, for the experiments that measure memory."""

from __future__ import annotations

from pathlib import Path

from stepbench.measure import allocator_memory
from stepbench.measure.allocator_memory import Watched
from stepbench.measure.measurement import Setting
from stepbench.workloads.decoder_step import DecoderStep, Shape, make

SNAPSHOT = ".snapshot.pickle"


def watch(setting: Setting, shape: Shape) -> Watched:
    """Run such a step twice and return what the allocator did in the second.

    On CUDA the allocator's snapshot is kept beside the record.

    Raises:
        ArithmeticError: a loss is not finite, so that what ran was no training step.
        UnsupportedError: the device cannot do what is asked for.
    """
    made: list[DecoderStep] = []

    def build() -> DecoderStep:
        made.append(make(setting, shape, steps=2))
        return made[-1]

    snapshot = None if setting.artifacts is None else Path(f"{setting.artifacts}{SNAPSHOT}")
    watched = allocator_memory.watch(build, device=setting.device, snapshot=snapshot)
    made[-1].loss_values()
    return watched
