"""A training step of the decoder as phases that a clock can be put between: forward, backward, optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from stepbench import versions
from stepbench.models.decoder import next_token_loss

if TYPE_CHECKING:
    from torch import nn

PASSES = ("forward", "forward_backward", "train_step")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEARNING_RATE = 3e-4


def precision_reason(precision: str, device: str) -> str | None:
    """Return why `device` cannot compute in `precision`, or None if it can."""
    if precision == "tf32":
        if device != "cuda":
            return f"tf32 needs a CUDA device of compute capability 8.0 or later, got {device}"
        if torch.cuda.get_device_capability() < (8, 0):
            return f"tf32 needs compute capability 8.0 or later, got {torch.cuda.get_device_capability()}"
    if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return f"bf16 needs a CUDA device that computes in it, got {torch.cuda.get_device_name()}"
    return None


def set_precision(precision: str) -> None:
    """Have float32 matrix products computed in float32, or in TF32 for `tf32`; the whole process is affected."""
    versions.set_float32_products(tf32=precision == "tf32")


class TrainingStep:
    """One model's step, phase by phase.

    Low precision is autocast around forward pass and loss with float32 parameters, and for fp16 a gradient scaler. The
    loss belongs to the forward phase; forgetting the old gradients belongs to the backward phase. Batches are on the
    device before a phase begins.

    Args:
        model: maps token ids `[B, T]` to logits `[B, T, V]`.
        batches: endless (inputs, targets), both `[B, T]` int64.
        device: `cuda`, `mps` or `cpu`.
        precision: one of `PRECISIONS`.
        passes: one of `PASSES`. `forward` runs without gradients.
        steps: how many steps will be run; their batches are moved to the device now.
        optimizer: for `train_step`; AdamW with torch's defaults where None.

    Raises:
        ValueError: `precision` or `passes` is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
        *,
        device: str,
        precision: str,
        passes: str,
        steps: int,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        if passes not in PASSES:
            raise ValueError(f"`passes` must be one of {', '.join(PASSES)}, got {passes!r}")
        self.model = model
        self.losses: list[torch.Tensor] = []
        self._passes = passes
        self._device = device
        self._autocast = AUTOCAST.get(precision)
        self._batches = iter([(x.to(device), y.to(device)) for x, y in (next(batches) for _ in range(steps))])
        self._optimizer = optimizer
        if passes == "train_step" and optimizer is None:
            self._optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
        self._scaler = torch.amp.GradScaler(device, enabled=precision == "fp16" and passes == "train_step")

    @property
    def phases(self) -> dict[str, Callable[[], None]]:
        """The phases of this pass in their order, for `stepbench.measure.training_step`."""
        phases = {"forward": self._forward}
        if self._passes != "forward":
            phases["backward"] = self._backward
        if self._passes == "train_step":
            phases["optimizer"] = self._step
        return phases

    def loss_values(self) -> list[float]:
        """Return the loss of each step so far in nats.

        Raises:
            ArithmeticError: one is not finite, so the steps that were timed did not compute a training step.
        """
        values = [float(loss) for loss in self.losses]
        for index, value in enumerate(values):
            if not torch.isfinite(torch.tensor(value)):
                raise ArithmeticError(f"the loss must be finite, got {value} in step {index}")
        return values

    def _forward(self) -> None:
        inputs, targets = next(self._batches)
        gradients = contextlib.nullcontext() if self._passes != "forward" else torch.no_grad()
        autocast = torch.autocast(self._device, dtype=self._autocast, enabled=self._autocast is not None)
        with gradients, autocast:
            self._loss = next_token_loss(self.model(inputs), targets)
        self.losses.append(self._loss.detach())

    def _backward(self) -> None:
        # The optimizer's parameters, because between forward and backward pass a sharded model shows others.
        (self._optimizer or self.model).zero_grad(set_to_none=True)
        self._scaler.scale(self._loss).backward()

    def _step(self) -> None:
        assert self._optimizer is not None  # noqa: S101 (the phase exists for train_step alone)
        self._scaler.step(self._optimizer)
        self._scaler.update()
