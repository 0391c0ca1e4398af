"""A decoder's training step on one of several ranks, and what it is predicted to allocate there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import distributed, nn

from stepbench import versions
from stepbench.measure import fit
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.measure.memory_timeline import Timeline
from stepbench.models import own_module
from stepbench.models.own import OwnModel
from stepbench.own_code import OwnCodeError
from stepbench.parallel import unit_plan
from stepbench.parallel.replica import Group, Replica
from stepbench.parallel.strategies import parallelize, strategy
from stepbench.workloads import decoders, predicted, ranks, step
from stepbench.workloads.spec import StepSpec
from stepbench.workloads.step import Batches, Step

OPTIONS = ("bucket_mib", "prefetch")


def build(
    spec: StepSpec,
    setting: Setting,
    *,
    steps: int,
    batches: Batches | None = None,
    group: Group = None,
    optimizer_options: Mapping[str, Any] | None = None,
) -> tuple[Step, Replica]:
    """Build this rank's step, and return what the strategy has made of it as well; a collective.

    Args:
        spec: what to build.
        setting: the device, and the protocol's seed.
        steps: how many will be run.
        batches: of this rank; random ones that differ from rank to rank where None.
        group: the process group, or None for all ranks.
        optimizer_options: in the place of the optimizer's own.

    Raises:
        UnsupportedError: the device cannot do what is asked for.
    """
    made: list[Replica] = []

    def wrap(module: nn.Module, *arguments: Any) -> Replica:
        options = _options(spec) | _of_own_models(spec, module)
        made.append(parallelize(str(spec.strategy), module, *arguments, group=group, **options))
        return made[-1]

    own = batches or step.feed(spec, setting, rank=distributed.get_rank())
    built = step.build(spec, setting, steps=steps, batches=own, wrap=wrap, optimizer_options=optimizer_options)
    return built, made[-1]


def unsupported_reason(spec: StepSpec, device: str) -> str | None:
    """Return why ranks on `device` cannot run such a step, or None if they can."""
    if spec.implementation != "eager":
        return f"a step on ranks must be eager, got {spec.implementation}"
    if spec.precision == "fp16":
        return "fp16 needs a gradient scaler that all ranks share, and there is none; valid are fp32, tf32, bf16"
    if spec.compute_dtype == "bf16" and spec.precision != "fp32":
        return f"a compute dtype of bf16 needs the precision fp32, got {spec.precision}"
    known = strategy(str(spec.strategy)).options
    for name in OPTIONS:
        if (value := getattr(spec, name)) is not None and name not in known:
            return f"`{name}` must be none for {spec.strategy}, which has none, got {value}"
    if spec.bucket_mib == 0:
        return "`bucket_mib` must be none or at least 1, got 0"
    return step.unsupported_reason(spec, device)


def predict(spec: StepSpec, setting: Setting) -> Timeline | None:
    """Return the predicted timeline of such a step after the first on one of the ranks, which send nothing meanwhile.

    The strategy's own code runs on fake tensors, with a process group that pretends. Where there is no process group
    yet, one is made for the time being, and this is its rank 0.

    Args:
        spec: the step; its `ranks` count where there is no process group.
        setting: the device, and the protocol's seed.

    Returns:
        None for a strategy that looks at values while it is set up: torch's DDP and `fully_shard`.

    Raises:
        predicted.UnpredictableError: code of the user's own needs values.
    """
    if strategy(str(spec.strategy)).looks_at_values:
        return None
    with versions.pretended_ranks(spec.ranks) as pretended:
        return predicted.on_fake_tensors(spec, lambda: build(spec, setting, steps=2, group=pretended)[0])


def must_predict(spec: StepSpec, setting: Setting) -> Timeline:
    """Return the predicted timeline of such a step as `predict` does, for whoever has no other answer.

    Raises:
        UnsupportedError: ranks on this device cannot run such a step, or this strategy cannot be predicted.
    """
    if spec.ranks < 1:
        raise UnsupportedError(f"there must be at least one rank, got {spec.ranks}")
    if setting.device not in ranks.DEVICES:
        raise UnsupportedError(f"ranks need the device {' or '.join(ranks.DEVICES)}, got {setting.device}")
    raise_unsupported(spec, setting)
    if (timeline := predict(spec, setting)) is None:
        raise UnsupportedError(
            f"a strategy must not look at values of tensors to be predicted, and {spec.strategy} does"
        )
    return timeline


def check_fit(spec: StepSpec, setting: Setting) -> None:
    """Refuse a step that is predicted not to fit on a rank's device, where predictions are trusted and can be made.

    Raises:
        PredictedOutOfMemoryError: it does not fit.
        UnsupportedError: the device cannot do what is asked for.
    """
    if not setting.trust_prediction or fit.capacity_bytes(setting.device) is None:
        return
    try:
        timeline = predict(spec, setting)
    except predicted.UnpredictableError:
        return
    if timeline is not None:
        fit.check(timeline.scalars()["peak_memory_bytes"], setting.device)


def raise_unsupported(spec: StepSpec, setting: Setting) -> None:
    """Raise where ranks on this device cannot run such a step.

    Raises:
        UnsupportedError: they cannot.
        OwnCodeError: a model of the user's own has nothing to shard, or fewer blocks than are grouped.
    """
    if (reason := unsupported_reason(spec, setting.device)) is not None:
        raise UnsupportedError(reason)
    _check_own(spec, setting)


def _of_own_models(spec: StepSpec, module: nn.Module) -> dict[str, Any]:
    """Return the options that a model of the user's own needs: it may have other matrices, and parameters unused."""
    size = spec.size
    if not isinstance(size, OwnModel):
        return {}
    found = {
        "sharded": lambda: _sharded(size, module),
        "find_unused_parameters": lambda: True,
    }
    known = strategy(str(spec.strategy)).options
    return {name: make() for name, make in found.items() if name in known}


def _sharded(own: OwnModel, module: nn.Module) -> tuple[type[nn.Module], ...]:
    """Return which modules of a model of the user's own are sharded.

    Raises:
        OwnCodeError: there is nothing to shard; one sentence.
    """
    found = own_module.sharded_classes(module, own)
    try:
        units = unit_plan.plan(module, found)
    except ValueError as error:
        raise OwnCodeError(f"`{own.source}` cannot be sharded: {error}") from None
    if not units:
        raise own_module.nothing_to_shard(module, own)
    return found


def _check_own(spec: StepSpec, setting: Setting) -> None:
    """Raise where a model of the user's own cannot be grouped or sharded so, which a rank would only say as its own."""
    if not isinstance(spec.size, OwnModel):
        return
    try:
        with versions.FakeTensorMode():
            _of_own_models(spec, decoders.build(spec, setting))
    except OwnCodeError as error:
        if error.__cause__ is None:  # else it may be fake tensors that its code does not bear
            raise


def _options(spec: StepSpec) -> dict[str, Any]:
    """Return the strategy's options as `parallelize` takes them."""
    options: dict[str, Any] = {name: value for name in OPTIONS if (value := getattr(spec, name)) is not None}
    return options | ({"compute_dtype": torch.bfloat16} if spec.compute_dtype == "bf16" else {})
