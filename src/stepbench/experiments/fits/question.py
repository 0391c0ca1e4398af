"""Does a step fit into so much memory, and what would have to change if it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepbench.experiments.fits.cell import Cell
from stepbench.measure.envelope import Envelope
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.workloads import fits, predicted, rank_step
from stepbench.workloads.spec import StepSpec

# What people change, the least that it costs them first. Each is tried alone, then all up to it together.
CHANGES: dict[str, dict[str, Any]] = {
    "attention sdpa": {"attention": "sdpa"},
    "checkpointing of every block": {"groups": (1,)},
    "fused AdamW": {"optimizer": "adamw_fused"},
    "bf16 autocast": {"precision": "bf16"},
    "chunked head": {"head": "chunked"},
    "parameters in bf16": {"precision": "bf16", "parameter_dtype": "bf16"},
    "plain SGD": {"optimizer": "sgd"},
    "FSDP on 8 ranks": {"strategy": "fsdp", "ranks": 8},
}


@dataclass(frozen=True)
class Way:
    """One way to run a step, and what it needs.

    Attributes:
        changes: names of `CHANGES`; none for the step as it was asked for.
        peak_bytes: predicted, at the batch and context that were asked for.
        largest_batch: that fits at this context; 0 where none does.
        largest_context: that fits at this batch; 0 where none does.
        fits: whether the step fits as it was asked for.
    """

    changes: tuple[str, ...]
    peak_bytes: int
    largest_batch: int
    largest_context: int
    fits: bool


def step(cell: Cell, setting: Setting, *, context: int, batch: int) -> StepSpec:
    """Return the step of a cell at a context and a batch.

    Raises:
        UnsupportedError: the model or the device cannot do what is asked for.
    """
    spec = StepSpec.of(cell, setting, context=context, batch=batch)
    reason = rank_step.unsupported_reason if spec.strategy else predicted.unsupported_reason
    if (found := reason(spec, setting.device)) is not None:
        raise UnsupportedError(found)
    return spec


def ask(spec: StepSpec, setting: Setting, memory_bytes: int) -> list[Way]:
    """Return what a step needs as it is, then what it needs with changes, if it does not fit as it is.

    Each change is tried alone; where none is enough, more and more of them together until the step fits.

    Raises:
        UnsupportedError: the device cannot do what is asked for, or the step cannot be predicted.
    """
    found = [_way((), fits.find(spec, setting), spec, memory_bytes)]
    if found[0].fits:
        return found
    for names, changed in _single(spec):
        found += _tried(names, changed, setting, memory_bytes)
    if not any(way.fits for way in found):
        possible = [name for way in found for name in way.changes]
        for names, changed in _together(spec, possible):
            found += _tried(names, changed, setting, memory_bytes)
            if found[-1].fits:
                break
    return found


def _single(spec: StepSpec) -> Iterator[tuple[tuple[str, ...], StepSpec]]:
    for name, values in CHANGES.items():
        if (changed := _with(spec, values)) != spec:
            yield (name,), changed


def _together(spec: StepSpec, possible: Sequence[str]) -> Iterator[tuple[tuple[str, ...], StepSpec]]:
    names: tuple[str, ...] = ()
    for name in possible:
        if (changed := _with(spec, CHANGES[name])) == spec:
            continue
        spec, names = changed, (*names, name)
        if len(names) > 1:
            yield names, spec


def _with(spec: StepSpec, values: Mapping[str, Any]) -> StepSpec:
    """Return the step with a change, or as it is where it has that or something of the kind already."""
    if "groups" in values and spec.groups:
        return spec
    if values.get("precision") == "bf16" and "parameter_dtype" not in values and spec.precision in ("bf16", "fp16"):
        return spec
    if values.get("optimizer") == "adamw_fused" and spec.optimizer == "sgd":
        return spec
    if ("ranks" in values and spec.ranks > 1) or ("head" in values and spec.head != "whole"):
        return spec
    return dataclasses.replace(spec, **values)


def _tried(names: tuple[str, ...], spec: StepSpec, setting: Setting, memory_bytes: int) -> list[Way]:
    try:
        return [_way(names, fits.find(spec, setting), spec, memory_bytes)]
    except (
        UnsupportedError,
        ValueError,
    ):  # such as bf16 on a device without it, or a model in which FSDP finds nothing to shard
        return []


def _way(names: tuple[str, ...], found: Envelope, spec: StepSpec, memory_bytes: int) -> Way:
    peak_bytes = found.peak_bytes(spec.batch, spec.context)
    return Way(
        names,
        peak_bytes,
        found.largest_batch(spec.context, memory_bytes),
        found.largest_context(spec.batch, memory_bytes),
        peak_bytes <= memory_bytes,
    )
