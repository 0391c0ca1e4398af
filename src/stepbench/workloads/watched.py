"""The memory of a decoder's step that runs, as the device's allocator tells it."""

from __future__ import annotations

from pathlib import Path

from stepbench.measure import allocator_memory
from stepbench.measure.allocator_memory import Watched
from stepbench.measure.measurement import Setting
from stepbench.workloads import step
from stepbench.workloads.spec import StepSpec
from stepbench.workloads.step import Step

WATCHED_BY = "the allocator's events, as torch's profiler reports them"
SNAPSHOT = ".snapshot.pickle"


def watch(spec: StepSpec, setting: Setting) -> Watched:
    """Run such a step twice and return what the allocator did in the second.

    On CUDA the allocator's snapshot is kept beside the record.

    Raises:
        WrongResultError: a loss is not finite, so that what ran was no training step.
        UnsupportedError: the device cannot do what is asked for.
    """
    made: list[Step] = []

    def build() -> Step:
        made.append(step.build(spec, setting, steps=2, with_scaler=False))
        return made[-1]

    snapshot = None if setting.artifacts is None else Path(f"{setting.artifacts}{SNAPSHOT}")
    watched = allocator_memory.watch(build, device=setting.device, snapshot=snapshot)
    made[-1].loss_values()
    return watched
