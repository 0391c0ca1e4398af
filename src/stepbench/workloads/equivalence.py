"""The check that the ranks' step is the step of one process: a few of both, and the parameters compared."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn, optim

from stepbench.kernels import api
from stepbench.measure.measurement import Setting, WrongResultError
from stepbench.models.checkpointing import checkpoint_blocks
from stepbench.models.own import OwnModel
from stepbench.own_code import OwnCodeError
from stepbench.workloads import decoders, rank_step, step
from stepbench.workloads.spec import StepSpec
from stepbench.workloads.step import Step

STEPS, BLOCKS, BATCH, CONTEXT, VOCABULARY = 3, 2, 2, 16, 1000
CHECKED_BY = (
    "parameters after a few steps on other data per rank, against one process on the joined batch and in float64"
)
# Two computations of equal quality may differ by both their errors.
FACTOR = 2.0
# Of float32, where the plain computation has hardly an error to compare with; parameters of less precision have one.
ROUNDINGS = 4.0
# Of how far the others went, per element: where a gradient is zero but for rounding, as that of a bias of keys is, the
# parameter goes nowhere.
STILL = 1e-3
SAME = 1e-9  # of a loss in float64, which products on several threads may change in its last digits
SUMMED = 64.0  # roundings of a gradient that is summed in another order, over the gradient


def check(spec: StepSpec, setting: Setting) -> dict[str, float]:
    """Train a few steps on other data on each rank, and compare with one process on the joined batch; a collective.

    The strategy `none`, which communicates nothing, is compared with one process on the rank's own batch.

    The one process has naive attention, all logits at once and no checkpointing, so that these are checked as well. The
    model is the cell's with at most `BLOCKS` blocks and `VOCABULARY` tokens; batch and context are small, and the
    optimizer has options under which a gradient of the wrong size shows (AdamW divides by it otherwise). Each parameter
    is looked at by itself: its error is the distance from one process in float64, over how far that one has moved.
    Returned is the parameter that is nearest to what is allowed.

    Returns:
        Of that parameter, `equivalence_difference_ratio`: the error of this step; `equivalence_plain_ratio`: that of
        one process which computes in the cell's own dtypes; `equivalence_tolerance_ratio`: what was allowed.

    Raises:
        WrongResultError: an error is larger than the tolerance, so that the ranks do not compute the step.
        OwnCodeError: a model of the user's own returns two losses for the same tokens.
    """
    world, rank = distributed.get_world_size(), distributed.get_rank()
    spec = _small(spec)
    joined = step.feed(dataclasses.replace(spec, batch=world * BATCH), setting)
    batches = list(itertools.islice(joined, STEPS))
    mine = slice(rank * BATCH, (rank + 1) * BATCH)
    own = [(x[mine], y[mine]) for x, y in batches]
    if spec.strategy == "none":
        batches = own

    options = _telling_options(spec)
    ranked, replica = rank_step.build(spec, setting, steps=STEPS, batches=iter(own), optimizer_options=options)
    plain_spec = dataclasses.replace(spec, groups=(), head="whole", strategy=None)
    # Bound by its name: the times do not depend on it, so that a change of it makes stale only the cells that name it.
    start = decoders.build(plain_spec, setting, attention=api.bind("naive"))
    before = _exact(start.named_parameters())
    exact_spec = dataclasses.replace(plain_spec, precision="fp32", parameter_dtype="fp32", compute_dtype="fp32")
    exact = copy.deepcopy(start).double()
    if isinstance(spec.size, OwnModel):
        _refuse_randomness(spec.size, exact, [each.to(setting.device) for each in batches[0]])
    oracle = _exact(_one_process(exact_spec, setting, exact, batches).named_parameters())
    plain = _exact(_one_process(plain_spec, setting, start, batches).named_parameters())
    for _ in range(STEPS):
        ranked.run()
    found = _exact(replica.full_parameters().items())

    went = {name: float((oracle[name] - value).norm()) for name, value in before.items()}
    farthest = max(distance / before[name].numel() ** 0.5 for name, distance in went.items())
    errors = {
        name: _errors(
            max(went[name], STILL * farthest * before[name].numel() ** 0.5),
            oracle[name],
            plain[name],
            found[ranks_name],
        )
        for name, ranks_name in zip(before, _names(spec, start), strict=True)
    }
    worst = max(errors, key=lambda name: errors[name]["equivalence_difference_ratio"] / _tolerance(errors[name]))
    difference, tolerance = errors[worst]["equivalence_difference_ratio"], _tolerance(errors[worst])
    if not difference <= tolerance:
        raise WrongResultError(
            f"after {STEPS} steps `{worst}` under {spec.strategy} must be within {tolerance:.2e} of one "
            f"process' on the joined batch (of the way it went), got {difference:.2e}"
        )
    return errors[worst]


def _refuse_randomness(own: OwnModel, exact: nn.Module, batch: list[Tensor]) -> None:
    """Refuse a model that differs from itself: the one process' error would be that, and everything within it.

    Operators of torch that draw random numbers were seen when it was examined; this sees Python's own as well.

    Args:
        own: the model.
        exact: it, in float64.
        batch: inputs and targets.

    Raises:
        OwnCodeError: it has returned two losses for the same tokens.
    """
    with torch.no_grad():
        first, second = (float(exact(*batch)) for _ in range(2))
    if abs(first - second) > SAME * abs(first):
        raise OwnCodeError(
            f"`{own.source}` must return the same loss for the same tokens in evaluation mode, got {first} and {second}"
        )


def stated() -> dict[str, Any]:
    """Return how it was checked, for the record's protocol."""
    return {
        "checked_by": CHECKED_BY,
        "equivalence_check": {
            "steps": STEPS,
            "blocks": BLOCKS,
            "vocabulary": VOCABULARY,
            "batch": BATCH,
            "context": CONTEXT,
        },
    }


def _small(spec: StepSpec) -> StepSpec:
    """Return the step cut to a size that takes no time, its blocks grouped as deeply as they can be."""
    spec = spec.shrunk(BLOCKS)
    layers = spec.size.layers or BLOCKS
    groups = sorted({min(size, layers) for size in spec.groups}, reverse=True)
    return dataclasses.replace(
        spec,
        vocabulary=min(VOCABULARY, spec.vocabulary),
        batch=BATCH,
        context=min(CONTEXT, spec.context),
        groups=tuple(groups),
    )


def _names(spec: StepSpec, model: nn.Module) -> list[str]:
    """Return the names of a model's parameters as the ranks have them: groups change names, and not the order."""
    if spec.groups:
        checkpoint_blocks(model, *spec.groups)
    return [name for name, _ in model.named_parameters()]


def _errors(moved: float, oracle: Tensor, plain: Tensor, found: Tensor) -> dict[str, float]:
    """Return what a parameter is off, what it may be off, and what the plain computation is off, over `moved`."""
    difference, plain_error = (float((each - oracle).norm()) / moved for each in (found, plain))
    rounding = ROUNDINGS * torch.finfo(torch.float32).eps * (float(oracle.norm()) / moved + SUMMED)
    return {
        "equivalence_difference_ratio": difference,
        "equivalence_plain_ratio": plain_error,
        "equivalence_tolerance_ratio": FACTOR * plain_error + rounding,
    }


def _tolerance(errors: dict[str, float]) -> float:
    return errors["equivalence_tolerance_ratio"]


def _telling_options(spec: StepSpec) -> dict[str, Any]:
    """Return options of the cell's optimizer under which a gradient's size shows, and steps stand out of rounding."""
    return {"lr": 1.0} if spec.optimizer == "sgd" else {"lr": 0.01, "eps": 0.01}


def _one_process(spec: StepSpec, setting: Setting, model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> nn.Module:
    """Train a model on whole batches in this process, in the dtypes of `spec`."""
    cls, options = step.optimizer_named(spec.optimizer)
    optimizer = cls(model.parameters(), **options | _telling_options(spec))
    here = [(x.to(setting.device), y.to(setting.device)) for x, y in batches]
    if spec.compute_dtype == "bf16":
        _train_in_low_precision(model, optimizer, here)
        return model
    made = Step(spec, setting.device, model=model, module=model, optimizer=optimizer, replica=None, batches=here)
    for _ in here:
        made.run()
    return model


def _train_in_low_precision(model: nn.Module, optimizer: optim.Optimizer, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Compute each step with a copy of the weights in bfloat16, and update the weights in their own dtype."""
    for x, y in batches:
        low = copy.deepcopy(model).to(torch.bfloat16)
        low(x, y).backward()
        for parameter, copied in zip(model.parameters(), low.parameters(), strict=True):
            parameter.grad = None if copied.grad is None else copied.grad.to(parameter.dtype)
        optimizer.step()


def _exact(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return copies in float64."""
    return {name: tensor.detach().double().clone() for name, tensor in named}
