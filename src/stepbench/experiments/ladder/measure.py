"""What does each measure buy that makes a training step fast, one after the other?"""

from __future__ import annotations

import gc
from typing import Any

import torch

from stepbench import versions
from stepbench.experiments.ladder.cell import Cell, settings_of, steps_of
from stepbench.measure import clock, energy, memory, timing
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError
from stepbench.measure.paging import Paging
from stepbench.workloads import captured, predicted, step, timed
from stepbench.workloads.spec import StepSpec


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Time whole steps of the fastest step so far and of the same with this rung, one after the other.

    Whoever comes second finds a process that is warm, so the two take turns from replicate to replicate. Each is built,
    warmed up, timed and deleted before the other: two models need not fit.

    Returns:
        Samples `step_s` (with the rung) and `base_s`; scalars of both, those of the base with `base_`; details `step`
        and `base` (their settings) and `kept` (the rungs that the base has).
    """
    base, rung = (StepSpec.of(cell, setting, **settings_of(each)) for each in steps_of(setting.definition))
    for spec in (base, rung):
        _raise_unsupported(spec, setting)
        predicted.check_fit(spec, setting)
    specs = {"step": rung, "base": base}
    found = {name: _time(specs[name], setting, name) for name in sorted(specs, reverse=cell.replicate % 2 == 1)}
    timed.check_loss(found["step"]["loss_nats"], rung, setting)
    samples: dict[str, Any] = {}
    for each in found.values():
        samples |= each["samples"]
    scalars: dict[str, Any] = {
        **rung.work(),
        **found["step"]["energy"],
        **{f"base_{key}": value for key, value in base.work().items() if key in ("tokens_per_step", "least_flops")},
    }
    for name, prefix in (("step", ""), ("base", "base_")):
        peak = found[name]["peak_memory_bytes"]
        if peak is None and cell.replicate == 0:  # the same in every process
            scalars[f"{prefix}predicted_peak_bytes"] = _predicted(specs[name], setting)
        else:
            scalars[f"{prefix}peak_memory_bytes"] = peak
    return Measurement(
        samples=samples,
        scalars=scalars,
        details={
            "kept": list(setting.definition["kept"]),
            "base": settings_of(steps_of(setting.definition)[0]),
            "step": settings_of(steps_of(setting.definition)[1]),
        },
        protocol={
            **timed.stated(rung, setting, warmup_steps=setting.protocol["warmup_steps"]),
            "precision": rung.precision,
            "order": "base first" if cell.replicate % 2 == 0 else "base second",
        },
    )


def _time(spec: StepSpec, setting: Setting, name: str) -> dict[str, Any]:
    """Return the samples of whole steps, the first loss, and where they are counted the peak of memory and energy."""
    warmup, measured = setting.protocol["warmup_steps"], setting.protocol["measured_steps"]
    timer, paged = clock.for_device(setting.device), Paging()
    memory.reset_peak(setting.device)
    made = step.build(spec, setting, steps=warmup + measured)
    ran = captured.CapturedStep(made) if spec.implementation == "captured" else made
    run = ran.run
    timing.time_whole(run, clock=timer, repeats=warmup)
    seconds = timing.time_whole(run, clock=timer, repeats=measured, paged=paged)
    losses = made.loss_values()
    peak = memory.peak_bytes(setting.device)["peak_memory_bytes"]
    joules: dict[str, float] = {}
    if name == "step":
        ran.start_over()
        joules, _ = energy.of_steps(run, device=setting.device, clock=timer)
    del made, ran, run
    if spec.implementation != "eager":
        torch.compiler.reset()  # its cache holds the model
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.empty_cache()
    samples = {f"{name}_s": seconds, **paged.samples(name), f"{name}_loss_nats": losses}
    return {"samples": samples, "loss_nats": losses[0], "peak_memory_bytes": peak, "energy": joules}


def _predicted(spec: StepSpec, setting: Setting) -> int | None:
    if predicted.unsupported_reason(spec, setting.device) is not None:
        return None
    try:
        return predicted.predict(spec, setting).scalars()["peak_memory_bytes"]
    except predicted.UnpredictableError:
        return None


def _raise_unsupported(spec: StepSpec, setting: Setting) -> None:
    """Raise where the device cannot, or where a CPU would compute bf16 without units for it, at a hundredth of fp32."""
    if (reason := step.unsupported_reason(spec, setting.device)) is not None:
        raise UnsupportedError(reason)
    if spec.precision == "bf16" and setting.device == "cpu" and not versions.cpu_has_bf16_units():
        raise UnsupportedError("bf16 is a rung where the CPU has units for it (AMX, AVX512_BF16), got one without")
