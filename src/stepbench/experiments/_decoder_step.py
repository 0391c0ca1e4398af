"""What experiments that time a decoder's step share: build it, feed it, time it, say what it cost."""

from __future__ import annotations

from typing import Any, cast

from stepbench.measure.measurement import Measurement, Setting, UnsupportedError


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
        ArithmeticError: a loss is not finite.
    """
    import torch
    from torch import nn

    from stepbench.kernels.api import bind, unsupported_reason
    from stepbench.measure import clock, memory, training_step
    from stepbench.models import costs
    from stepbench.models.decoder import Decoder
    from stepbench.models.sizes import ModelSize
    from stepbench.models.training import AUTOCAST, TrainingStep, precision_reason, set_precision

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
    shape = {"vocabulary": vocabulary, "batch": batch, "context": context}
    return Measurement(
        samples=samples,
        scalars={
            "parameters": costs.parameters(size, vocabulary),
            "tokens_per_step": batch * context,
            "forward_flops": costs.forward_flops(size, **shape),
            "backward_flops": costs.backward_flops(size, **shape),
            **memory.peak_bytes(setting.device),
        },
        protocol={
            "warmup_steps": warmup_steps,
            "measured_steps": measured_steps,
            "clock": timer.name,
            "effective_threads": torch.get_num_threads(),
            "optimizer": "AdamW, torch's default implementation",
        },
    )


def _batches(setting: Setting, *, context: int, batch: int) -> Any:
    from stepbench.data import tokens

    vocabulary, seed = setting.definition["vocabulary"], setting.protocol["seed"]
    if setting.tokens is None:
        return tokens.synthetic(vocabulary=vocabulary, batch=batch, context=context, seed=seed)
    ids = tokens.open_tokens(setting.tokens, vocabulary=vocabulary, context=context)
    return tokens.batches(ids, batch=batch, context=context, seed=seed)
