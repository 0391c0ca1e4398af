"""The time of a decoder's step: by phases and as a whole, after a warm-up, with its first loss checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from stepbench.kernels import api
from stepbench.measure import clock, energy, memory, training_step
from stepbench.measure.measurement import Measurement, Setting, WrongResultError
from stepbench.workloads import decoders, predicted, step
from stepbench.workloads.spec import StepSpec
from stepbench.workloads.step import Step

# Of the loss. Over 16 tokens and more rounding moved it by at most 1e-7 in fp32, 6e-6 in fp16 and 8e-5 in bf16 (nano
# and micro, naive, sdpa and tiled on a CPU); attention or logits that are all zero moved it by 7e-4 to 1e-2.
LOSS_TOLERANCE_RATIO = {"fp32": 1e-5, "tf32": 1e-4, "fp16": 1e-4, "bf16": 5e-4}
NAIVE_UP_TO = 4096  # tokens: beyond, naive scores of one layer alone take gigabytes, which the step itself may not need


def measure(
    spec: StepSpec, setting: Setting, *, warmup_steps: int | None = None, with_energy: bool = False
) -> Measurement:
    """Time the phases of the step, then the whole step, after `warmup_steps` steps (the protocol's where None).

    Returns:
        Samples `forward_s`, `backward_s`, `optimizer_s` (as far as the passes go), `step_s`, the same of the warm-up,
        and `loss_nats` of every step in run order; page faults and system time of what was measured; scalars of
        parameters, FLOPs, tokens and memory, on CUDA also `allocator_retries` and `device_allocations`; with
        `with_energy`, where a counter tells it, `step_energy_joules` of as many more steps as it needs.

    Raises:
        UnsupportedError: the device cannot do what is asked for.
        PredictedOutOfMemoryError: the step is predicted not to fit on the device.
        WrongResultError: a loss is not finite, or the first is not that of this model and these tokens.
    """
    predicted.check_fit(spec, setting)
    warmup_steps = setting.protocol["warmup_steps"] if warmup_steps is None else warmup_steps
    made = step.build(spec, setting, steps=steps_for(setting, warmup_steps))
    memory.reset_peak(setting.device)
    calls = memory.AllocatorCalls(setting.device)
    samples = time(made, setting, warmup_steps=warmup_steps, after_warmup=calls.start)
    samples["loss_nats"] = made.loss_values()
    counted = {**memory.peak_bytes(setting.device), **calls.scalars()}
    joules, counter = energy_of(made, setting) if with_energy else ({}, {})
    del made  # the check needs room of its own
    memory.collect(setting.device)
    check_loss(samples["loss_nats"][0], spec, setting)
    return Measurement(
        samples=samples,
        scalars={**spec.work(), **counted, **joules},
        protocol={**stated(spec, setting, warmup_steps=warmup_steps), **counter},
    )


def energy_of(made: Step, setting: Setting) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the energy of one more step of a step that is warm, see `stepbench.measure.energy.of_steps`."""
    made.start_over()
    return energy.of_steps(made.run, device=setting.device, clock=clock.for_device(setting.device))


def steps_for(setting: Setting, warmup_steps: int) -> int:
    """Return how many steps `time` runs."""
    return int(warmup_steps + 2 * setting.protocol["measured_steps"])


def time(
    made: Step, setting: Setting, *, warmup_steps: int, after_warmup: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Return the samples of a step that has been built; `after_warmup` is called before the first measured step."""
    return {
        **training_step.measure(
            made.phases,
            clock=clock.for_device(setting.device),
            warmup_steps=warmup_steps,
            measured_steps=setting.protocol["measured_steps"],
            after_warmup=after_warmup,
        )
    }


def stated(spec: StepSpec, setting: Setting, *, warmup_steps: int) -> dict[str, Any]:
    """Return how a step was timed, for the record's protocol."""
    return {
        "warmup_steps": warmup_steps,
        "measured_steps": setting.protocol["measured_steps"],
        "clock": clock.for_device(setting.device).name,
        "effective_threads": torch.get_num_threads(),
        "optimizer": spec.optimizer,
        "attention": spec.attention,
        **spec.unknown(),
    }


def check_loss(found: float, spec: StepSpec, setting: Setting) -> None:
    """Hold the loss of the first step against that of a plain model: the same weights and tokens, eager, in float32.

    Raises:
        WrongResultError: they differ by more than rounding, so that what was timed is not this model's step.
    """
    plain_spec = dataclasses.replace(spec, precision="fp32", groups=(), head="whole")
    # Bound by its name: no number comes from it, so that a change of it makes no cell stale that does not name it.
    attention = api.bind("naive" if spec.context <= NAIVE_UP_TO else "tiled")
    plain = decoders.build(plain_spec, setting, attention=attention).float()
    inputs, targets = next(step.feed(spec, setting))
    with torch.no_grad():  # one sequence at a time, which takes less memory than the step did
        pairs = zip(inputs.to(setting.device).split(1), targets.to(setting.device).split(1), strict=True)
        expected = float(torch.stack([plain(x, y) for x, y in pairs]).mean())
    allowed = LOSS_TOLERANCE_RATIO[spec.precision] * expected
    if not abs(found - expected) <= allowed:
        raise WrongResultError(f"the first loss must be within {allowed:.2g} of {expected:.6g} nats, got {found:.6g}")
