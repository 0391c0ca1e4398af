"""Which operators and kernels take the time?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stepbench.experiments.experiment import Experiment
from stepbench.measure.measurement import Measurement, Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stepbench.reporting.frames import Results
    from stepbench.reporting.tables import Table


@dataclass(frozen=True)
class Profile:
    """A decoder's step under torch's profiler, and under nsys where there is one."""

    size: str
    context: int
    batch: int = 4
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    implementation: Literal["eager", "compiled"] = "eager"
    passes: Literal["forward", "forward_backward", "train_step"] = "train_step"
    replicate: int = 0


def measure(cell: Profile, setting: Setting) -> Measurement:
    """Time the step without the profiler, then profile a few more, phase by phase."""
    import torch

    from stepbench.experiments import _decoder_memory, _profiled_step
    from stepbench.measure import clock, profiler, training_step
    from stepbench.models import costs, ranged_attention
    from stepbench.models.sizes import ModelSize

    what = _profiled_step.Profiled(cell.context, cell.batch, cell.precision, cell.implementation, cell.passes)
    shape = _decoder_memory.Shape(cell.context, cell.batch, cell.precision, passes=cell.passes)
    if setting.device in _decoder_memory.WATCHED_DEVICES:
        _decoder_memory.check_fit(setting, shape)
    warmup_steps, measured_steps = setting.protocol["warmup_steps"], setting.protocol["measured_steps"]
    steps = warmup_steps + 2 * measured_steps + profiler.PROFILED_STEPS + 1
    step = _profiled_step.make(setting, what, steps=steps)
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
            "nsys": _profiled_step.under_nsys(setting, what),
        },
        protocol={
            "warmup_steps": warmup_steps,
            "measured_steps": measured_steps,
            "profiled_steps": profiler.PROFILED_STEPS,
            "clock": timer.name,
            "effective_threads": torch.get_num_threads(),
        },
    )


# -- what is told of it; nothing above uses what is below, so that no number goes stale with a table's layout ----------


def tabulate(results: Results) -> list[Table]:
    """Return what the phases come to, the parts of attention, and the top operators and kernels of each phase."""
    from stepbench.reporting import profile_tables

    return [
        profile_tables.phases(results),
        profile_tables.attention(results),
        profile_tables.top_operators(results),
        profile_tables.top_kernels(results),
        profile_tables.nsys(results),
    ]


def plot(results: Results) -> dict[str, Figure]:
    """Return the phases' shares by kind of operator, and the top operators of each phase."""
    from stepbench.reporting import profile_figures

    groups = results.groups()
    return {"shares": profile_figures.shares(groups), "operators": profile_figures.top_operators(groups)}


def find(results: Results) -> list[str]:
    """Return the top operator of each phase, how many calls a step makes, and where matrix products stand."""
    from stepbench.reporting import profile_findings

    return profile_findings.find(results)


EXPERIMENT = Experiment(
    name="profile",
    title="Profile",
    question="Which operators and kernels take the time?",
    cell=Profile,
    measure=measure,
    settings=("protocol", "vocabulary"),
    table_names=("phases", "attention", "operators", "kernels", "nsys"),
    tabulate=tabulate,
    figure_names=("shares", "operators"),
    plot=plot,
    find=find,
)
