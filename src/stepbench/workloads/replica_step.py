"""A decoder's training step on one of several ranks, and the proof that it is the step of one process.

Everything here runs on a rank, or in the measuring process where a step is predicted without other ranks.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed, nn, optim

from stepbench import versions
from stepbench.data import tokens
from stepbench.measure import predicted_memory
from stepbench.measure.measurement import Setting
from stepbench.measure.memory_timeline import Timeline
from stepbench.models.decoder import Decoder, next_token_loss
from stepbench.models.training import TrainingStep
from stepbench.parallel.replica import Replica
from stepbench.parallel.strategies import parallelize
from stepbench.workloads import decoder_step
from stepbench.workloads.decoder_step import Shape

PROOF_STEPS, PROOF_BLOCKS, PROOF_BATCH, PROOF_CONTEXT, PROOF_VOCABULARY = 3, 2, 2, 16, 1000
# Two computations of equal quality may differ by both their errors.
PROOF_FACTOR = 2.0
# Of float32, where the plain computation has hardly an error to compare with; parameters of less precision have one.
ROUNDINGS = 4.0
SUMMED = 64.0  # roundings of a gradient that is summed in another order, over the gradient


@dataclass(frozen=True)
class What:
    """What a rank trains, as JSON can hold it.

    Attributes:
        strategy: one of `stepbench.parallel.strategies.STRATEGIES`.
        shape: the fields of a `Shape`; its batch is one rank's.
        ranks: how many.
        options: of the strategy; `compute_dtype` is `fp32` or `bf16`.
    """

    strategy: str
    shape: dict[str, Any]
    ranks: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def step(self) -> Shape:
        """The shape of one rank's step."""
        return Shape(**{**self.shape, "group_sizes": ()})

    @property
    def compute_dtype(self) -> str | None:
        """What the strategy casts weights to, if it does."""
        return self.options.get("compute_dtype")

    def arguments(self) -> dict[str, Any]:
        """Return the strategy's options with torch's dtypes."""
        dtypes = {"fp32": None, "bf16": torch.bfloat16}
        found = {key: value for key, value in self.options.items() if value is not None}
        return found | ({"compute_dtype": dtypes[self.compute_dtype]} if self.compute_dtype else {})


class ReplicaStep:
    """One rank's step (`stepbench.measure.memory_timeline.WatchedStep`), with a phase for what is still on its way.

    Args:
        setting: with `size` and `vocabulary` in its definition.
        what: the strategy and the shape.
        batches: endless (inputs, targets) of this rank.
        steps: how many will be run.
        model: the module to wrap, taken over; the decoder of the shape where None.
        group: the process group, or None for all ranks.
        options: of the optimizer, in place of its own.
    """

    def __init__(
        self,
        setting: Setting,
        what: What,
        batches: Iterator[Any],
        *,
        steps: int,
        model: Decoder | None = None,
        group: Any = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        shape = what.step
        cls, usual = decoder_step.optimizer_named(shape.optimizer)
        module = model or decoder_step.decoder(setting, shape)
        self.replica: Replica = parallelize(
            what.strategy, module, cls, {**usual, **(options or {})}, group=group, **what.arguments()
        )
        self._step = TrainingStep(
            self.replica.module,
            batches,
            device=setting.device,
            precision=shape.autocast_precision,
            passes="train_step",
            steps=steps,
            optimizer=self.replica.optimizer,
        )

    @property
    def phases(self) -> dict[str, Callable[[], object]]:
        """The phases in their order; in `synchronization` this rank waits for gradients that are not here yet."""
        forward, backward, optimizer = self._step.phases.values()
        return {
            "forward": forward,
            "backward": backward,
            "synchronization": self.replica.finish_gradient_synchronization,
            "optimizer": optimizer,
        }

    def run(self) -> None:
        """Run a whole step."""
        for work in self.phases.values():
            work()

    def run_without_communication(self) -> None:
        """Run the step with its gradients left where they are; the ranks' parameters drift apart."""
        phases = self.phases
        with self.replica.no_sync():
            phases["forward"]()
            phases["backward"]()
        phases["optimizer"]()

    def prime(self) -> None:
        """Run a first step, so that gradients and optimizer state are there."""
        self.run()

    def owned(self) -> Mapping[str, list[Tensor]]:
        """Return the tensors that exist now of parameters, gradients and optimizer state."""
        return self.replica.tensors()

    def loss_values(self) -> list[float]:
        """Return this rank's loss of each step so far in nats.

        Raises:
            ArithmeticError: one is not finite.
        """
        return self._step.loss_values()


def batches(setting: Setting, shape: Shape, *, rank: int) -> Iterator[Any]:
    """Return random tokens that differ from rank to rank."""
    return tokens.synthetic(
        vocabulary=setting.definition["vocabulary"],
        batch=shape.batch,
        context=shape.context,
        seed=setting.protocol["seed"] + rank,
    )


PREDICTABLE = ("none", "naive", "flat", "overlapped", "bucketed", "sharded_broadcast", "sharded_reduce_scatter",
               "torch_zero", "fsdp")  # fmt: skip


def predict(setting: Setting, what: What) -> Timeline | None:
    """Return the predicted timeline of such a step after the first on one of the ranks, which send nothing meanwhile.

    The strategy's own code runs on fake tensors, with a process group that pretends. Where there is no process group
    yet, one is made for the time being, and this is its rank 0.

    Args:
        setting: with `size` and `vocabulary` in its definition.
        what: the strategy and the shape; its `ranks` count where there is no process group.

    Returns:
        None for a strategy that looks at values while it is set up: torch's DDP and `fully_shard`.
    """
    if what.strategy not in PREDICTABLE:
        return None
    with versions.pretended_ranks(what.ranks) as pretended:
        tokens = decoder_step.random_batches(setting.definition["vocabulary"], what.step)
        return predicted_memory.predict(lambda: ReplicaStep(setting, what, tokens, steps=2, group=pretended))


def prove(setting: Setting, what: What) -> dict[str, float]:
    """Train a few steps on other data on each rank, and compare with one process on the joined batch; a collective.

    The strategy `none`, which communicates nothing, is compared with one process on the rank's own batch.

    The model is the cell's with at most `PROOF_BLOCKS` blocks and `PROOF_VOCABULARY` tokens; batch and context are
    small, and the optimizer has options under which a gradient of the wrong size shows (AdamW divides by it otherwise).
    Each parameter is looked at by itself: its error is the distance from one process in float64, over how far that one
    has moved. The parameter that is nearest to what is allowed is told.

    Returns:
        Of that parameter, `proof_difference_ratio`: the error of this strategy; `proof_plain_ratio`: that of one
        process which computes in the cell's own dtypes; `proof_tolerance_ratio`: what was allowed.

    Raises:
        ArithmeticError: an error is larger than the tolerance, so that the strategy does not compute the step.
    """
    world, rank = distributed.get_world_size(), distributed.get_rank()
    layers = min(PROOF_BLOCKS, setting.definition["size"]["layers"])
    size = setting.definition["size"] | {"layers": layers}
    vocabulary = min(PROOF_VOCABULARY, setting.definition["vocabulary"])
    cut = setting.definition | {"size": size, "vocabulary": vocabulary}
    setting = dataclasses.replace(setting, definition=cut)
    small = {"batch": PROOF_BATCH, "context": min(PROOF_CONTEXT, what.step.context)}
    what = dataclasses.replace(what, shape=what.shape | small)
    start = decoder_step.decoder(setting, what.step)
    joined = batches(setting, dataclasses.replace(what.step, batch=world * PROOF_BATCH), rank=0)
    steps = list(itertools.islice(joined, PROOF_STEPS))
    mine = slice(rank * PROOF_BATCH, (rank + 1) * PROOF_BATCH)
    own = [(x[mine], y[mine]) for x, y in steps]
    if what.strategy == "none":
        steps = own

    before = _exact(start.named_parameters())
    oracle = _exact(_one_process(setting, what, copy.deepcopy(start).double(), steps, exact=True).named_parameters())
    plain = _exact(_one_process(setting, what, copy.deepcopy(start), steps).named_parameters())
    replica = ReplicaStep(setting, what, iter(own), steps=PROOF_STEPS, model=start, options=_telling_options(what))
    for _ in range(PROOF_STEPS):
        replica.run()
    found = _exact(replica.replica.full_parameters().items())
    errors = {name: _errors(before[name], oracle[name], plain[name], found[name]) for name in oracle}
    worst = max(errors, key=lambda name: errors[name]["proof_difference_ratio"] / errors[name]["proof_tolerance_ratio"])
    difference, tolerance = (errors[worst][f"proof_{each}_ratio"] for each in ("difference", "tolerance"))
    if not difference <= tolerance:
        raise ArithmeticError(
            f"after {PROOF_STEPS} steps `{worst}` under {what.strategy} must be within {tolerance:.2e} of one "
            f"process' on the joined batch (of the way it went), got {difference:.2e}"
        )
    return errors[worst]


def _errors(before: Tensor, oracle: Tensor, plain: Tensor, found: Tensor) -> dict[str, float]:
    """Return what a parameter is off, what it may be off, and what the plain computation is off."""
    moved = float((oracle - before).norm())
    difference, plain_error = (float((each - oracle).norm()) / moved for each in (found, plain))
    rounding = ROUNDINGS * torch.finfo(torch.float32).eps * (float(oracle.norm()) / moved + SUMMED)
    return {
        "proof_difference_ratio": difference,
        "proof_plain_ratio": plain_error,
        "proof_tolerance_ratio": PROOF_FACTOR * plain_error + rounding,
    }


def _telling_options(what: What) -> dict[str, Any]:
    """Return options of the cell's optimizer under which a gradient's size shows, and steps stand out of rounding."""
    return {"lr": 1.0} if what.step.optimizer == "sgd" else {"lr": 0.01, "eps": 0.01}


def _one_process(setting: Setting, what: What, model: nn.Module, steps: list[Any], *, exact: bool = False) -> nn.Module:
    """Train a model on whole batches in this process, in the cell's dtypes, or exactly: without any low precision."""
    cls, options = decoder_step.optimizer_named(what.step.optimizer)
    optimizer = cls(model.parameters(), **options | _telling_options(what))
    if what.compute_dtype == "bf16" and not exact:
        _train_in_low_precision(setting, model, optimizer, steps)
        return model
    step = TrainingStep(
        model,
        iter(steps),
        device=setting.device,
        precision="fp32" if exact else what.step.autocast_precision,
        passes="train_step",
        steps=len(steps),
        optimizer=optimizer,
    )
    for _ in steps:
        for work in step.phases.values():
            work()
    return model


def _train_in_low_precision(setting: Setting, model: nn.Module, optimizer: optim.Optimizer, steps: list[Any]) -> None:
    """Compute each step with a copy of the weights in bfloat16, and update the weights in their own dtype."""
    for x, y in steps:
        low = copy.deepcopy(model).to(torch.bfloat16)
        next_token_loss(low(x.to(setting.device)), y.to(setting.device)).backward()
        for parameter, copied in zip(model.parameters(), low.parameters(), strict=True):
            assert copied.grad is not None  # noqa: S101 - every weight of a decoder is used
            parameter.grad = copied.grad.to(parameter.dtype)
        optimizer.step()


def _exact(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return copies in float64."""
    return {name: tensor.detach().double().clone() for name, tensor in named}
