"""The specification of a decoder's training step: all that decides what it computes, allocates and communicates.

Every experiment that looks at a step makes one of its cell, and only says what it observes: time, memory, operators or
communication. `stepbench.workloads.step` builds what is specified.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stepbench import own_code
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.models import costs, hugging_face
from stepbench.models.architecture import Architecture
from stepbench.models.own import OwnModel, is_own
from stepbench.models.precision import AUTOCAST
from stepbench.models.sizes import ModelSize
from stepbench.workloads import attention_check, examined

OPTIMIZERS = ("adamw_loop", "adamw_foreach", "adamw_fused", "sgd")
USUAL_HEAD_DIM = 64  # stands for that of a model of the user's own; each implementation of attention takes it
_GROUPS = re.compile(r"[1-9][0-9]*(-[1-9][0-9]*)*")


@dataclass(frozen=True)
class StepSpec:
    """One decoder's training step.

    Attributes:
        size: of the decoder, or the model of the user's own in its place.
        vocabulary: how many token ids there are; the size's own where it names one.
        context: tokens per sequence.
        batch: sequences; of one rank, where there are several.
        precision: of the computation, as in `stepbench.models.precision`.
        parameter_dtype: `fp32`, or `bf16` for parameters, gradients and optimizer state in bfloat16 without autocast.
        attention: a name of `stepbench.kernels.names`, or `path.py:function` of a kernel of the user's own.
        head: head and loss, a name of `stepbench.kernels.heads.names`.
        implementation: `eager`; `compiled` for model and loss as one graph of torch.compile; `compiled_graphs` for the
            same in its mode `reduce-overhead`, which launches CUDA graphs; `captured` for the whole eager step as one
            CUDA graph, the optimizer included.
        passes: how much of the step runs: `forward` (without gradients), `forward_backward` or `train_step`.
        optimizer: one of `OPTIMIZERS`; `adamw_foreach` is what torch chooses by itself on CUDA.
        groups: blocks per checkpointed group, from the outermost groups to the innermost; () is no checkpointing.
        strategy: a name of `stepbench.parallel.names`, or None for a step that knows of no other rank.
        ranks: how many train together.
        nodes: over how many machines they are divided.
        bucket_mib: of strategies with buckets; None is their default.
        prefetch: of strategies that gather weights ahead; None is their default.
        compute_dtype: of strategies that cast weights: `bf16`, or `fp32` for no casts.
    """

    size: ModelSize | OwnModel
    vocabulary: int
    context: int
    batch: int
    precision: str = "fp32"
    parameter_dtype: str = "fp32"
    attention: str = "naive"
    head: str = "whole"
    implementation: str = "eager"
    passes: str = "train_step"
    optimizer: str = "adamw_foreach"
    groups: tuple[int, ...] = ()
    strategy: str | None = None
    ranks: int = 1
    nodes: int = 1
    bucket_mib: int | None = None
    prefetch: int | None = None
    compute_dtype: str = "fp32"

    @classmethod
    def of(cls, cell: Any, setting: Setting, **fixed: Any) -> StepSpec:
        """Return the step that a cell asks for: its axes by name, and what the experiment fixes.

        Args:
            cell: whose axes are fields of this class, `groups` as text such as `4-1`; other axes are left alone.
            setting: with `size` and `vocabulary` in its definition.
            **fixed: fields that the cell does not have, or that are to be others than the cell's.

        Raises:
            UnsupportedError: this model's blocks cannot be grouped so.
            WrongResultError: an attention kernel of the user's own is not attention.
            stepbench.own_code.OwnCodeError: a model or a kernel of the user's own cannot be used.
        """
        size = model_of(setting.definition["size"])
        names = {field.name for field in dataclasses.fields(cls)} - {"size", "vocabulary"}
        values = {name: getattr(cell, name) for name in names if hasattr(cell, name)} | fixed
        if isinstance(values.get("groups"), str):
            blocks = size.layers if isinstance(size, ModelSize) else None
            values["groups"] = group_sizes(values["groups"], blocks)
        if "attention" in values:
            values["attention"] = setting.kernel(values["attention"])
        vocabulary = size.vocabulary or _named_by_file(size) or setting.definition["vocabulary"]
        spec = cls(size=size, vocabulary=vocabulary, **values)
        spec.work()  # of a model of the user's own this says what is wrong with it
        if own_code.is_own(spec.attention):
            spec._check_kernel(setting.device)
        return spec

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> StepSpec:
        """Return what `plain` was made of."""
        return cls(**{**plain, "size": model_of(plain["size"]), "groups": tuple(plain["groups"])})

    def plain(self) -> dict[str, Any]:
        """Return the specification as JSON can hold it, for another process."""
        return dataclasses.asdict(self)

    @property
    def autocast_precision(self) -> str:
        """What is left to autocast once the parameters have their dtype."""
        return "fp32" if self.parameter_dtype == "bf16" else self.precision

    def work(self) -> dict[str, int | None]:
        """Return what the step works on, of all ranks, and what one rank computes, as scalars of a record.

        FLOPs that nobody knows are None; `unknown` says why. `least_flops` are those that no implementation of the
        whole step goes below (`stepbench.models.costs.least_flops`); of a model with an attention of its own nobody
        knows how many are attention's.
        """
        tokens = {"tokens_per_step": self.ranks * self.batch * self.context}
        if isinstance(self.size, OwnModel):
            found = self._examined()
            flops = {"forward_flops": found.forward_flops, "backward_flops": found.backward_flops}
            return {"parameters": found.parameters, **tokens, **flops, "least_flops": self._least_of_own(found)}
        cost = {"vocabulary": self.vocabulary, "batch": self.batch, "context": self.context}
        return {
            "parameters": costs.parameters(self.size, self.vocabulary),
            **tokens,
            "forward_flops": costs.forward_flops(self.size, **cost),
            "backward_flops": costs.backward_flops(self.size, **cost),
            "least_flops": costs.least_flops(
                self.size, **cost, backward=self.passes != "forward", checkpointed=bool(self.groups)
            ),
        }

    def _least_of_own(self, found: examined.Examined) -> int | None:
        if found.forward_flops is None or found.backward_flops is None or found.masked_flops is None:
            return None
        forward = found.forward_flops - found.masked_flops
        # What checkpointed blocks compute again is not known, and not among them.
        return forward + (found.backward_flops - 2 * found.masked_flops if self.passes != "forward" else 0)

    def unknown(self) -> dict[str, str]:
        """Return what is not known of the work and why, for a record's protocol."""
        if not isinstance(self.size, OwnModel) or (reason := self._examined().unknown) is None:
            return {}
        return {"flops_unknown": reason}

    def shrunk(self, layers: int) -> StepSpec:
        """Return the same step of a model with at most that many blocks, where that can be chosen."""
        most = min(layers, self.size.layers) if isinstance(self.size, ModelSize) else layers
        return dataclasses.replace(self, size=dataclasses.replace(self.size, layers=most))

    @property
    def runs_own_code(self) -> bool:
        """Whether code of the user's own runs in the step."""
        return isinstance(self.size, OwnModel) or own_code.is_own(self.attention)

    @property
    def attention_dtype(self) -> torch.dtype:
        """The dtype in which attention is computed."""
        return AUTOCAST.get(self.compute_dtype if self.compute_dtype == "bf16" else self.precision, torch.float32)

    def _check_kernel(self, device: str) -> None:
        shape = {"head_dim": USUAL_HEAD_DIM, "shared": 1}
        if isinstance(self.size, ModelSize):
            model = Architecture.of(self.size)
            shape = {"head_dim": model.head_dim, "shared": model.heads // model.key_heads}
        attention_check.check_own(self.attention, device=device, dtype=self.attention_dtype, **shape)

    def _examined(self) -> examined.Examined:
        assert isinstance(self.size, OwnModel)  # noqa: S101 - of the others everything is known by formula
        return examined.examine(self.size, vocabulary=self.vocabulary, batch=self.batch, context=self.context)


def model_of(section: Mapping[str, Any]) -> ModelSize | OwnModel:
    """Return what an entry of `sizes` or `models` in config.yaml describes."""
    if is_own(section):
        return OwnModel(**section)
    plain = {field.name for field in dataclasses.fields(ModelSize)}
    return ModelSize(**section) if section.keys() <= plain else Architecture(**section)


def _named_by_file(size: ModelSize | OwnModel) -> int | None:
    """Return the vocabulary that the file of a model of the user's own names, if it can name one."""
    return hugging_face.vocabulary_of(size) if isinstance(size, OwnModel) and size.hf is not None else None


def group_sizes(text: str, blocks: int | None) -> tuple[int, ...]:
    """Return the blocks per checkpointed group that an axis names: `none`, `4`, or `4-1` for groups inside of groups.

    Args:
        text: of the axis.
        blocks: how many the model has, or None where only building it tells.

    Raises:
        UnsupportedError: the text is another, or a model with this number of blocks cannot be grouped this way.
    """
    if text == "none":
        return ()
    sizes = tuple(map(int, text.split("-"))) if _GROUPS.fullmatch(text) else ()
    most = math.inf if blocks is None else blocks
    if not sizes or any(outer <= inner for outer, inner in zip((most + 1, *sizes), sizes, strict=False)):
        raise UnsupportedError(
            f"`groups` must be none, or falling numbers of blocks from {blocks or 'all'} to 1 such as 4 or 4-1, "
            f"got {text}"
        )
    return sizes
