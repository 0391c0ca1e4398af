"""The specification of a decoder's training step: all that decides what it computes, allocates and communicates.

Every experiment that looks at a step makes one of its cell, and only says what it observes: time, memory, operators or
communication. `stepbench.workloads.step` builds what is specified.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.models import costs
from stepbench.models.sizes import ModelSize

OPTIMIZERS = ("adamw_loop", "adamw_foreach", "adamw_fused", "sgd")
_GROUPS = re.compile(r"[1-9][0-9]*(-[1-9][0-9]*)*")


@dataclass(frozen=True)
class StepSpec:
    """One decoder's training step.

    Attributes:
        size: of the decoder.
        vocabulary: how many token ids there are; the size's own where it names one.
        context: tokens per sequence.
        batch: sequences; of one rank, where there are several.
        precision: of the computation, as in `stepbench.models.precision`.
        parameter_dtype: `fp32`, or `bf16` for parameters, gradients and optimizer state in bfloat16 without autocast.
        attention: a name of `stepbench.kernels.names`.
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

    size: ModelSize
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
        """
        size = ModelSize(**setting.definition["size"])
        names = {field.name for field in dataclasses.fields(cls)} - {"size", "vocabulary"}
        values = {name: getattr(cell, name) for name in names if hasattr(cell, name)} | fixed
        if isinstance(values.get("groups"), str):
            values["groups"] = group_sizes(values["groups"], size.layers)
        return cls(size=size, vocabulary=size.vocabulary or setting.definition["vocabulary"], **values)

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> StepSpec:
        """Return what `plain` was made of."""
        return cls(**{**plain, "size": ModelSize(**plain["size"]), "groups": tuple(plain["groups"])})

    def plain(self) -> dict[str, Any]:
        """Return the specification as JSON can hold it, for another process."""
        return dataclasses.asdict(self)

    @property
    def autocast_precision(self) -> str:
        """What is left to autocast once the parameters have their dtype."""
        return "fp32" if self.parameter_dtype == "bf16" else self.precision

    def work(self) -> dict[str, int]:
        """Return what the step works on, of all ranks, and what one rank computes, as scalars of a record."""
        cost = {"vocabulary": self.vocabulary, "batch": self.batch, "context": self.context}
        return {
            "parameters": costs.parameters(self.size, self.vocabulary),
            "tokens_per_step": self.ranks * self.batch * self.context,
            "forward_flops": costs.forward_flops(self.size, **cost),
            "backward_flops": costs.backward_flops(self.size, **cost),
        }


def group_sizes(text: str, blocks: int) -> tuple[int, ...]:
    """Return the blocks per checkpointed group that an axis names: `none`, `4`, or `4-1` for groups inside of groups.

    Raises:
        UnsupportedError: the text is another, or a model with this number of blocks cannot be grouped this way.
    """
    if text == "none":
        return ()
    sizes = tuple(map(int, text.split("-"))) if _GROUPS.fullmatch(text) else ()
    if not sizes or any(outer <= inner for outer, inner in zip((blocks + 1, *sizes), sizes, strict=False)):
        raise UnsupportedError(
            f"`groups` must be none, or falling numbers of blocks from {blocks} to 1 such as 4 or 4-1, got {text}"
        )
    return sizes
