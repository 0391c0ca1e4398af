"""Which operators and kernels take the time?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepbench.experiments.profile.cell import Cell
from stepbench.measure import memory, profiler
from stepbench.measure.measurement import Measurement, Setting
from stepbench.models import ranged_attention
from stepbench.workloads import predicted, profiled, timed
from stepbench.workloads.spec import StepSpec


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Time the step without the profiler, then profile a few more, phase by phase."""
    spec = StepSpec.of(cell, setting)
    predicted.check_fit(spec, setting)
    warmup_steps = setting.protocol["warmup_steps"]
    steps = timed.steps_for(setting, warmup_steps) + profiler.PROFILED_STEPS + 1
    made = profiled.make(spec, setting, steps=steps)
    samples: dict[str, Any] = timed.time(made, setting, warmup_steps=warmup_steps)
    trace = None if setting.artifacts is None else Path(f"{setting.artifacts}.trace.json.gz")
    seen = profiler.run(made.phases, device=setting.device, ranges=ranged_attention.MARK, trace=trace)
    samples |= {f"profiled_{phase}_s": seconds for phase, seconds in seen.phase_s.items()}
    samples["loss_nats"] = made.loss_values()
    del made
    memory.collect(setting.device)  # nsys' process finds an empty device
    return Measurement(
        samples=samples,
        scalars=spec.work(),
        details={
            **seen.details(),
            "trace": trace.name if trace else None,
            "nsys": profiled.under_nsys(spec, setting),
        },
        protocol={
            **timed.stated(spec, setting, warmup_steps=warmup_steps),
            "profiled_steps": profiler.PROFILED_STEPS,
        },
    )
