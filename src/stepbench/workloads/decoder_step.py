"""What experiments that look into a decoder's step share: the step, what it is predicted to need, whether that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, optim

from stepbench.kernels.api import bind
from stepbench.measure import fit, predicted_memory
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.measure.memory_timeline import Timeline
from stepbench.models.checkpointing import checkpoint_blocks
from stepbench.models.decoder import Decoder
from stepbench.models.sizes import ModelSize
from stepbench.models.training import LEARNING_RATE, TrainingStep, precision_reason, set_precision

OPTIMIZERS = ("adamw_loop", "adamw_foreach", "adamw_fused", "sgd")
WATCHED_DEVICES = ("cuda", "cpu")


@dataclass(frozen=True)
class Shape:
    """All that decides what a decoder's step allocates, beside its size and vocabulary.

    Attributes:
        context: tokens per sequence.
        batch: sequences.
        precision: of the computation, as in `stepbench.models.training`.
        parameter_dtype: `fp32`, or `bf16` for parameters, gradients and optimizer state in bfloat16 without autocast.
        passes: how much of the step is run.
        optimizer: one of `OPTIMIZERS`; torch's default on CUDA is what `adamw_foreach` names.
        group_sizes: of checkpointed blocks, from the outermost groups to the innermost; none is no checkpointing.
    """

    context: int
    batch: int
    precision: str = "fp32"
    parameter_dtype: str = "fp32"
    passes: str = "train_step"
    optimizer: str = "adamw_foreach"
    group_sizes: tuple[int, ...] = ()

    @property
    def autocast_precision(self) -> str:
        """What is left to the step once the parameters have their dtype."""
        return "fp32" if self.parameter_dtype == "bf16" else self.precision


class DecoderStep:
    """A decoder's step whose memory can be watched (`stepbench.measure.memory_timeline.WatchedStep`).

    For fp16 there is no gradient scaler: its state is two numbers, and a prediction cannot run one.
    """

    def __init__(self, model: Decoder, step: TrainingStep, optimizer: optim.Optimizer | None) -> None:
        self.model = model
        self._step = step
        self._optimizer = optimizer

    @property
    def phases(self) -> dict[str, Callable[[], object]]:
        """The phases in their order."""
        optimizer = {} if self._optimizer is None else {"optimizer": self._optimizer.step}
        return {**self._step.phases, **optimizer}

    def prime(self) -> None:
        """Give each parameter a gradient, as a backward pass does, and let the optimizer make its state of them."""
        if "backward" in self._step.phases:
            for parameter in self.model.parameters():
                parameter.grad = torch.zeros_like(parameter)
        if self._optimizer is not None:
            self._optimizer.step()

    def owned(self) -> Mapping[str, list[Tensor]]:
        """Return the tensors that exist now of parameters, gradients and optimizer state."""
        parameters = list(self.model.parameters())
        states = [] if self._optimizer is None else self._optimizer.state.values()
        return {
            "parameters": [*parameters],
            "gradients": [parameter.grad for parameter in parameters if parameter.grad is not None],
            "optimizer_state": [each for state in states for each in state.values() if isinstance(each, torch.Tensor)],
        }

    def loss_values(self) -> list[float]:
        """Return the loss of each step so far in nats.

        Raises:
            ArithmeticError: one is not finite.
        """
        return self._step.loss_values()


def make(setting: Setting, shape: Shape, *, steps: int) -> DecoderStep:
    """Build the step of a decoder with naive attention, fed with random tokens; real, or fake under FakeTensorMode.

    Args:
        setting: with `size` and `vocabulary` in its definition.
        shape: the rest.
        steps: how many will be run.

    Raises:
        UnsupportedError: the device cannot do what is asked for.
    """
    model = decoder(setting, shape)
    step = TrainingStep(
        model,
        random_batches(setting.definition["vocabulary"], shape),
        device=setting.device,
        precision=shape.autocast_precision,
        passes="forward" if shape.passes == "forward" else "forward_backward",
        steps=steps,
    )
    optimizer = None
    if shape.passes == "train_step":
        cls, options = optimizer_named(shape.optimizer)
        optimizer = cls(model.parameters(), **options)
    return DecoderStep(model, step, optimizer)


def decoder(setting: Setting, shape: Shape) -> Decoder:
    """Build the decoder alone, with the values that the protocol's seed gives.

    Raises:
        UnsupportedError: the device cannot do what is asked for.
    """
    if (reason := unsupported_reason(setting, shape)) is not None:
        raise UnsupportedError(reason)
    torch.manual_seed(setting.protocol["seed"])
    set_precision(shape.precision)
    model = Decoder(
        ModelSize(**setting.definition["size"]),
        vocabulary=setting.definition["vocabulary"],
        attention=bind("naive"),
        dtype=torch.bfloat16 if shape.parameter_dtype == "bf16" else torch.float32,
        device=setting.device,
    )
    if shape.group_sizes:
        checkpoint_blocks(model, *shape.group_sizes)
    return model


def unsupported_reason(setting: Setting, shape: Shape) -> str | None:
    """Return why such a step cannot be watched here, or None if it can."""
    if setting.device not in WATCHED_DEVICES:
        return f"memory is watched on {' and '.join(WATCHED_DEVICES)}, got {setting.device}"
    if shape.parameter_dtype == "bf16" and shape.precision != "bf16":
        return f"parameters in bf16 need the precision bf16, got {shape.precision}"
    return precision_reason(shape.precision, setting.device)


def predict(setting: Setting, shape: Shape) -> Timeline:
    """Return the predicted timeline of such a step after the first.

    Raises:
        UnsupportedError: the device cannot do what is asked for.
    """
    return predicted_memory.predict(lambda: make(setting, shape, steps=1))


def check_fit(setting: Setting, step: Shape | int) -> None:
    """Refuse a step that is predicted not to fit on the device, where predictions are trusted.

    Args:
        setting: with the device.
        step: what it is, or how many bytes it is predicted to need at its peak.

    Raises:
        PredictedOutOfMemoryError: it does not fit.
        UnsupportedError: the device cannot do what is asked for.
    """
    if setting.trust_prediction and fit.capacity_bytes(setting.device) is not None:
        needed = step if isinstance(step, int) else predict(setting, step).scalars()["peak_memory_bytes"]
        fit.check(needed, setting.device)


def random_batches(vocabulary: int, shape: Shape) -> Iterator[Any]:
    """Yield (inputs, targets), both `[batch, context]`, of random tokens; fake ones under FakeTensorMode."""
    while True:
        tokens = torch.randint(vocabulary, (shape.batch, shape.context + 1))
        yield tokens[:, :-1], tokens[:, 1:]


def optimizer_named(name: str) -> tuple[type[optim.Optimizer], dict[str, Any]]:
    """Return the class and the options of one of `OPTIMIZERS`."""
    chosen: dict[str, tuple[type[optim.Optimizer], dict[str, Any]]] = {
        "adamw_loop": (torch.optim.AdamW, {"foreach": False}),
        "adamw_foreach": (torch.optim.AdamW, {"foreach": True}),
        "adamw_fused": (torch.optim.AdamW, {"fused": True}),
        "sgd": (torch.optim.SGD, {"foreach": False}),
    }
    cls, options = chosen[name]
    return cls, {"lr": LEARNING_RATE, **options}
