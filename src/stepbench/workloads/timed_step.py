"""What experiments that time a decoder's step share: build it, feed it, time it, say what it cost."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from stepbench.data import tokens
from stepbench.kernels.api import bind, unsupported_reason
from stepbench.measure import clock, memory, training_step
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError
from stepbench.models import costs
from stepbench.models.decoder import Decoder, next_token_loss
from stepbench.models.sizes import ModelSize
from stepbench.models.training import AUTOCAST, TrainingStep, precision_reason, set_precision

# Of the loss. Over 16 tokens and more rounding moved it by at most 1e-7 in fp32, 6e-6 in fp16 and 8e-5 in bf16 (nano
# and micro, naive, sdpa and tiled on a CPU); attention or logits that are all zero moved it by 7e-4 to 1e-2.
LOSS_TOLERANCE_RATIO = {"fp32": 1e-5, "tf32": 1e-4, "fp16": 1e-4, "bf16": 5e-4}


def measure(
    setting: Setting,
    *,
    context: int,
    batch: int,
    precision: str,
    implementation: str,
    attention: str,
    passes: str,
    warmup_steps: int,
) -> Measurement:
    """Time the phases of a decoder's step, then the whole step, after `warmup_steps` steps.

    Returns:
        Samples `forward_s`, `backward_s`, `optimizer_s` (as far as `passes` goes), `step_s`, the same of the warm-up,
        and `loss_nats` of every step in run order; scalars of parameters, FLOPs, tokens and memory.

    Raises:
        UnsupportedError: the device cannot do what is asked for.
        ArithmeticError: a loss is not finite, or the first is not that of this model and these tokens.
    """
    size = ModelSize(**setting.definition["size"])
    vocabulary = setting.definition["vocabulary"]
    dtype = AUTOCAST.get(precision, torch.float32)
    reason = precision_reason(precision, setting.device) or unsupported_reason(
        attention, device=setting.device, dtype=dtype, head_dim=size.head_dim
    )
    if reason is not None:
        raise UnsupportedError(reason)

    measured_steps = setting.protocol["measured_steps"]
    torch.manual_seed(setting.protocol["seed"])
    set_precision(precision)
    model = Decoder(size, vocabulary=vocabulary, attention=bind(attention), device=setting.device)
    step = TrainingStep(
        # A model that torch.compile had to cut into pieces would be slower, and the number would not say so.
        cast(nn.Module, torch.compile(model, fullgraph=True)) if implementation == "compiled" else model,
        _batches(setting, context=context, batch=batch),
        device=setting.device,
        precision=precision,
        passes=passes,
        steps=warmup_steps + 2 * measured_steps,
    )
    memory.reset_peak(setting.device)
    timer = clock.for_device(setting.device)
    samples: dict[str, Any] = training_step.measure(
        step.phases, clock=timer, warmup_steps=warmup_steps, measured_steps=measured_steps
    )
    samples["loss_nats"] = step.loss_values()
    peak_bytes = memory.peak_bytes(setting.device)
    del step, model  # the check needs room of its own
    _check_loss(samples["loss_nats"][0], setting, context=context, batch=batch, precision=precision)
    shape = {"vocabulary": vocabulary, "batch": batch, "context": context}
    return Measurement(
        samples=samples,
        scalars={
            "parameters": costs.parameters(size, vocabulary),
            "tokens_per_step": batch * context,
            "forward_flops": costs.forward_flops(size, **shape),
            "backward_flops": costs.backward_flops(size, **shape),
            **peak_bytes,
        },
        protocol={
            "warmup_steps": warmup_steps,
            "measured_steps": measured_steps,
            "clock": timer.name,
            "effective_threads": torch.get_num_threads(),
            "optimizer": "AdamW, torch's default implementation",
        },
    )


def _check_loss(found: float, setting: Setting, *, context: int, batch: int, precision: str) -> None:
    """Hold the loss of the first step against that of a plain model: the same weights and tokens, eager, in float32.

    Raises:
        ArithmeticError: they differ by more than rounding, so that what was timed is not this model's step.
    """
    set_precision("fp32")
    inputs, targets = next(_batches(setting, context=context, batch=batch))
    torch.manual_seed(setting.protocol["seed"])
    size, vocabulary = ModelSize(**setting.definition["size"]), setting.definition["vocabulary"]
    plain = Decoder(size, vocabulary=vocabulary, attention=bind("naive"), device=setting.device)
    with torch.no_grad():  # one sequence at a time, which takes less memory than the step did
        pairs = zip(inputs.to(setting.device).split(1), targets.to(setting.device).split(1), strict=True)
        expected = float(torch.stack([next_token_loss(plain(x), y) for x, y in pairs]).mean())
    allowed = LOSS_TOLERANCE_RATIO[precision] * expected
    if not abs(found - expected) <= allowed:
        raise ArithmeticError(f"the first loss must be within {allowed:.2g} of {expected:.6g} nats, got {found:.6g}")


def _batches(setting: Setting, *, context: int, batch: int) -> Any:
    vocabulary, seed = setting.definition["vocabulary"], setting.protocol["seed"]
    if setting.tokens is None:
        return tokens.synthetic(vocabulary=vocabulary, batch=batch, context=context, seed=seed)
    ids = tokens.open_tokens(setting.tokens, vocabulary=vocabulary, context=context)
    return tokens.batches(ids, batch=batch, context=context, seed=seed)
