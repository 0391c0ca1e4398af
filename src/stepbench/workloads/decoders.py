"""The model of a step: a decoder that is built in, or one of the user's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stepbench.kernels import api
from stepbench.kernels.heads import api as heads
from stepbench.measure.measurement import Setting
from stepbench.models import hugging_face, own_module
from stepbench.models.architecture import Architecture
from stepbench.models.checkpointing import checkpoint_blocks
from stepbench.models.decoder import Decoder
from stepbench.models.layers import Attention
from stepbench.models.own import OwnModel
from stepbench.models.precision import set_precision
from stepbench.workloads.spec import USUAL_HEAD_DIM, StepSpec

WHOLE, NAIVE = "whole", "naive"


def build(spec: StepSpec, setting: Setting, *, attention: Attention | None = None) -> nn.Module:
    """Return the decoder alone; the precision of matrix products is set for the whole process.

    With tokens and targets `[B, T]` it returns the mean loss in nats.

    Args:
        spec: with the model, its attention and its groups.
        setting: the device, and the protocol's seed.
        attention: in the place of the one that `spec` names, one that computes the same.

    Raises:
        stepbench.own_code.OwnCodeError: the user's own cannot be built.
    """
    torch.manual_seed(setting.protocol["seed"])
    set_precision(spec.precision)
    made: dict[str, Any] = {
        "vocabulary": spec.vocabulary,
        "attention": attention or api.bind(spec.attention),
        "dtype": torch.bfloat16 if spec.parameter_dtype == "bf16" else torch.float32,
        "device": setting.device,
    }
    model: nn.Module
    if isinstance(spec.size, OwnModel):
        model = own_module.build(spec.size, context=spec.context, **made)
    else:
        model = Decoder(spec.size, loss=heads.bind(spec.head), **made)
    if spec.groups:
        checkpoint_blocks(model, *spec.groups)
    return model


def unsupported_reason(spec: StepSpec, device: str) -> str | None:
    """Return why `device` cannot run this model with this attention and this head, or None if it can."""
    dtype = spec.attention_dtype
    shape: dict[str, Any] = {"device": device, "dtype": dtype, "q_len": spec.context, "is_causal": True}
    if isinstance(spec.size, OwnModel):
        if spec.head != WHOLE:
            return f"`{spec.size.source}` has a head of its own; the axis must be {WHOLE}, got {spec.head}"
        if spec.size.hf is not None and spec.context > (most := hugging_face.positions_of(spec.size) or spec.context):
            return f"`{spec.size.source}` has {most} positions, got a context of {spec.context}"
        if own_module.takes_attention(spec.size):
            return api.unsupported_reason(spec.attention, head_dim=USUAL_HEAD_DIM, **shape)
        if spec.attention != NAIVE:
            return (
                f"`{spec.size.source}` has an attention of its own, because its function has no parameter `attention`; "
                f"the axis must be {NAIVE}, got {spec.attention}"
            )
        return None
    model = Architecture.of(spec.size)
    if model.positions and spec.context > model.positions:
        return f"this model has {model.positions} learned positions, got a context of {spec.context}"
    if (reason := heads.unsupported_reason(spec.head, device=device, dtype=dtype)) is not None:
        return reason
    grouped = model.key_heads < model.heads
    return api.unsupported_reason(spec.attention, head_dim=model.head_dim, grouped=grouped, **shape)
