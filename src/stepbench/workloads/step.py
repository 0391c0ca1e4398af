"""A decoder's training step, built from its specification: real, or fake under FakeTensorMode; alone, or on a rank."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn, optim

from stepbench import versions
from stepbench.data import tokens
from stepbench.measure.measurement import Setting, UnsupportedError, WrongResultError
from stepbench.models.layers import Attention
from stepbench.models.own import OwnModel
from stepbench.models.precision import AUTOCAST, precision_reason
from stepbench.workloads import decoders
from stepbench.workloads.spec import StepSpec

LEARNING_RATE = 3e-4
GRAPHS = ("compiled_graphs", "captured")

Batches = Iterator[tuple[Tensor, Tensor]]


class Replica(Protocol):
    """What a strategy makes of a module and its optimizer (`stepbench.parallel.replica.Replica`)."""

    @property
    def module(self) -> nn.Module:
        """What is called."""

    @property
    def optimizer(self) -> optim.Optimizer:
        """What is stepped."""

    def finish_gradient_synchronization(self) -> None:
        """Return when the gradients are ready for the optimizer."""

    def no_sync(self) -> contextlib.AbstractContextManager[None]:
        """Accumulate gradients without communication."""

    def tensors(self) -> Mapping[str, list[Tensor]]:
        """Return what this rank holds now of parameters, gradients and optimizer state."""


Wrap = Callable[[nn.Module, type[optim.Optimizer], Mapping[str, Any]], Replica]


class Step:
    """One training step, phase by phase (`stepbench.measure.memory_timeline.WatchedStep`).

    The loss belongs to the forward phase; forgetting the old gradients belongs to the backward phase. Batches are on
    the device before a phase begins. On a rank there is a phase more, `synchronization`, in which it waits for
    gradients that are not here yet.

    Args:
        spec: what is computed.
        device: `cuda`, `mps` or `cpu`.
        model: the decoder itself, or the user's own.
        module: what is called: the decoder, compiled or wrapped.
        optimizer: what is stepped, or None.
        replica: what a strategy has made of them, or None.
        batches: one for each step that will be run.
        with_scaler: whether in fp16 a gradient scaler surrounds backward pass and optimizer.
    """

    def __init__(
        self,
        spec: StepSpec,
        device: str,
        *,
        model: nn.Module,
        module: nn.Module,
        optimizer: optim.Optimizer | None,
        replica: Replica | None,
        batches: list[tuple[Tensor, Tensor]],
        with_scaler: bool = True,
    ) -> None:
        self.spec, self.model = spec, model
        self.losses: list[Tensor] = []
        self._device, self._module, self._optimizer, self._replica = device, module, optimizer, replica
        self._given = batches
        self.batches: Batches = iter(batches)
        self._autocast = AUTOCAST.get(spec.autocast_precision)
        scales = with_scaler and spec.autocast_precision == "fp16" and optimizer is not None
        self._scaler = torch.amp.GradScaler(device, enabled=scales)

    @property
    def phases(self) -> dict[str, Callable[[], None]]:
        """The phases in their order."""
        phases = {"forward": self._forward}
        if self.spec.passes != "forward":
            phases["backward"] = self._backward
        if self._replica is not None:
            phases["synchronization"] = self._replica.finish_gradient_synchronization
        if self._optimizer is not None:
            phases["optimizer"] = self._update
        return phases

    def run(self) -> None:
        """Run a whole step."""
        for work in self.phases.values():
            work()

    def start_over(self) -> Batches:
        """Take the same batches again and without end: for more steps, of which nothing but the cost matters."""
        self.batches = itertools.cycle(self._given)
        return self.batches

    def run_without_communication(self) -> None:
        """Run the step with its gradients left where they are; the ranks' parameters drift apart."""
        assert self._replica is not None  # noqa: S101 - asked for on ranks alone
        with self._replica.no_sync():
            self._forward()
            self._backward()
        self._update()

    def prime(self) -> None:
        """Bring gradients and optimizer state into being, as a first step would leave them behind.

        On a rank, and of a model of the user's own, by a first step: only that tells which parameters it reaches.
        """
        if self._replica is not None or isinstance(self.spec.size, OwnModel):
            self.run()
            return
        if self.spec.passes != "forward":
            for parameter in self.model.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        if self._optimizer is not None:
            self._optimizer.step()

    def owned(self) -> Mapping[str, list[Tensor]]:
        """Return the tensors that exist now of parameters, gradients and optimizer state."""
        if self._replica is not None:
            return self._replica.tensors()
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
            WrongResultError: one is not finite, so the steps that were observed did not compute a training step.
        """
        values = [float(loss) for loss in self.losses]
        for index, value in enumerate(values):
            if not torch.isfinite(torch.tensor(value)):
                raise WrongResultError(f"the loss must be finite, got {value} in step {index}")
        return values

    def _forward(self) -> None:
        inputs, targets = next(self.batches)
        if replays := self.spec.implementation == "compiled_graphs":
            torch.compiler.cudagraph_mark_step_begin()
        gradients = contextlib.nullcontext() if self.spec.passes != "forward" else torch.no_grad()
        autocast = torch.autocast(self._device, dtype=self._autocast, enabled=self._autocast is not None)
        with gradients, autocast:
            self._loss = self._module(inputs, targets)
        loss = self._loss.detach()
        self.losses.append(loss.clone() if replays else loss)  # the next replay writes over a graph's output

    def _backward(self) -> None:
        # The optimizer's parameters, because between forward and backward pass a sharded model shows others.
        (self._optimizer or self.model).zero_grad(set_to_none=True)
        self._scaler.scale(self._loss).backward()

    def _update(self) -> None:
        assert self._optimizer is not None  # noqa: S101 - the phase exists for train_step alone
        self._scaler.step(self._optimizer)
        self._scaler.update()


def build(
    spec: StepSpec,
    setting: Setting,
    *,
    steps: int,
    batches: Batches | None = None,
    attention: Attention | None = None,
    wrap: Wrap | None = None,
    optimizer_options: Mapping[str, Any] | None = None,
    with_scaler: bool = True,
) -> Step:
    """Build the step, with the weights that the protocol's seed gives.

    Args:
        spec: what to build.
        setting: the device, and the protocol's seed.
        steps: how many will be run; their batches are moved to the device now.
        batches: of (inputs, targets), both `[batch, context]`; those of `feed` where None.
        attention: in the place of the one that `spec` names, one that computes the same.
        wrap: sets up module and optimizer with the strategy (`stepbench.workloads.rank_step`); None for one process.
        optimizer_options: in the place of the optimizer's own.
        with_scaler: False where memory is looked at: a gradient scaler's own state is two numbers, it cannot run on
            fake tensors, because it reads a value, and a first step that it skips leaves no optimizer state behind.

    Raises:
        UnsupportedError: the device cannot do what is asked for.
    """
    if (reason := unsupported_reason(spec, setting.device)) is not None:
        raise UnsupportedError(reason)
    model = decoders.build(spec, setting, attention=attention)
    module: nn.Module = model
    if spec.implementation.startswith("compiled"):
        # A model that torch.compile had to cut into pieces would be slower, and the number would not say so.
        mode = "reduce-overhead" if spec.implementation == "compiled_graphs" else None
        module = cast(nn.Module, torch.compile(model, fullgraph=True, mode=mode))
    optimizer, replica = None, None
    cls, options = optimizer_named(spec.optimizer)
    if spec.implementation == "captured" and spec.optimizer != "sgd":
        options["capturable"] = True
    options |= optimizer_options or {}
    if wrap is not None:
        replica = wrap(module, cls, options)
        module, optimizer = replica.module, replica.optimizer
    elif spec.passes == "train_step":
        optimizer = cls(model.parameters(), **options)
    endless = feed(spec, setting) if batches is None else batches
    taken = [(x.to(setting.device), y.to(setting.device)) for x, y in (next(endless) for _ in range(steps))]
    return Step(
        spec,
        setting.device,
        model=model,
        module=module,
        optimizer=optimizer,
        replica=replica,
        batches=taken,
        with_scaler=with_scaler,
    )


def unsupported_reason(spec: StepSpec, device: str) -> str | None:
    """Return why `device` cannot run such a step, or None if it can."""
    if spec.parameter_dtype == "bf16" and spec.precision != "bf16":
        return f"parameters in bf16 need the precision bf16, got {spec.precision}"
    if (reason := precision_reason(spec.precision, device)) is not None:
        return reason
    if spec.implementation in GRAPHS and device != "cuda":
        return f"CUDA graphs need a CUDA device, got {device}"
    if spec.implementation == "captured" and (spec.precision == "fp16" or spec.passes != "train_step"):
        return "a captured step must be a whole training step without a gradient scaler, which reads a value"
    if spec.passes != "train_step" and spec.strategy is not None:
        return f"a strategy needs whole training steps, got {spec.passes}"
    return decoders.unsupported_reason(spec, device)


def optimizer_named(name: str) -> tuple[type[optim.Optimizer], dict[str, Any]]:
    """Return the class and the options of one of `stepbench.workloads.spec.OPTIMIZERS`."""
    chosen: dict[str, tuple[type[optim.Optimizer], dict[str, Any]]] = {
        "adamw_loop": (torch.optim.AdamW, {"foreach": False}),
        "adamw_foreach": (torch.optim.AdamW, {"foreach": True}),
        "adamw_fused": (torch.optim.AdamW, {"fused": True}),
        "sgd": (torch.optim.SGD, {"foreach": False}),
    }
    cls, options = chosen[name]
    return cls, {"lr": LEARNING_RATE, **options}


def feed(spec: StepSpec, setting: Setting, *, rank: int = 0) -> Batches:
    """Return endless batches: of the prepared tokens where there are some, else random ones, other ones on each rank.

    Under FakeTensorMode they are fake.
    """
    shape = {"batch": spec.batch, "context": spec.context}
    if versions.tensors_are_fake():
        return _fake_batches(spec)
    seed = setting.protocol["seed"] + rank
    if setting.tokens is None:
        return tokens.synthetic(vocabulary=spec.vocabulary, seed=seed, **shape)
    ids = tokens.open_tokens(setting.tokens, vocabulary=spec.vocabulary, context=spec.context)
    return tokens.batches(ids, seed=seed, **shape)


def _fake_batches(spec: StepSpec) -> Batches:
    while True:
        both = torch.randint(spec.vocabulary, (spec.batch, spec.context + 1))
        yield both[:, :-1], both[:, 1:]
