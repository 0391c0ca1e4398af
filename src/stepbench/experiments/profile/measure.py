"""Which operators and kernels take the time?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from stepbench.experiments.profile.cell import Cell
from stepbench.measure import clock, profiler, training_step
from stepbench.measure.measurement import Measurement, Setting
from stepbench.models import costs, ranged_attention
from stepbench.models.sizes import ModelSize
from stepbench.workloads import decoder_step, profiled_step


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Time the step without the profiler, then profile a few more, phase by phase."""
    what = profiled_step.Profiled(cell.context, cell.batch, cell.precision, cell.implementation, cell.passes)
    shape = decoder_step.Shape(cell.context, cell.batch, cell.precision, passes=cell.passes)
    if setting.device in decoder_step.WATCHED_DEVICES:
        decoder_step.check_fit(setting, shape)
    warmup_steps, measured_steps = setting.protocol["warmup_steps"], setting.protocol["measured_steps"]
    steps = warmup_steps + 2 * measured_steps + profiler.PROFILED_STEPS + 1
    step = profiled_step.make(setting, what, steps=steps)
    timer = clock.for_device(setting.device)
    samples: dict[str, Any] = training_step.measure(
        step.phases, clock=timer, warmup_steps=warmup_steps, measured_steps=measured_steps
    )
    trace = None if setting.artifacts is None else Path(f"{setting.artifacts}.trace.json.gz")
    seen = profiler.run(step.phases, device=setting.device, ranges=ranged_attention.MARK, trace=trace)
    samples |= {f"profiled_{phase}_s": seconds for phase, seconds in seen.phase_s.items()}
    samples["loss_nats"] = step.loss_values()
    del step
    size = ModelSize(**setting.definition["size"])
    cost = {"vocabulary": setting.definition["vocabulary"], "batch": cell.batch, "context": cell.context}
    return Measurement(
        samples=samples,
        scalars={
            "parameters": costs.parameters(size, setting.definition["vocabulary"]),
            "tokens_per_step": cell.batch * cell.context,
            "forward_flops": costs.forward_flops(size, **cost),
            "backward_flops": costs.backward_flops(size, **cost),
        },
        details={
            **seen.details(),
            "trace": trace.name if trace else None,
            "nsys": profiled_step.under_nsys(setting, what),
        },
        protocol={
            "warmup_steps": warmup_steps,
            "measured_steps": measured_steps,
            "profiled_steps": profiler.PROFILED_STEPS,
            "clock": timer.name,
            "effective_threads": torch.get_num_threads(),
        },
    )
