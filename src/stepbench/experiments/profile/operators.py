"""A profile's operators by kind of work, as shares of a phase, and as parts of attention."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepbench.reporting import units
from stepbench.reporting.columns import where
from stepbench.reporting.marks import Mark
from stepbench.reporting.points import Group, processes
from stepbench.reporting.statistics import Summary
from stepbench.reporting.steps import PHASES, WHOLE

MATRIX_PRODUCTS = "matrix products"
OUTSIDE = "framework overhead"
BOOKKEEPING = "views and bookkeeping"
ATTENTION_PARTS = ("scores", "softmax", "values")
ADDS_UP_WITHIN = 0.10
STEPS = {
    "forward": "a forward pass",
    "forward_backward": "a forward and backward pass",
    "train_step": "a training step",
}

# Names without `aten::`, of the operators that do the work themselves; those that only call others have no self time.
_KINDS = {
    MATRIX_PRODUCTS: "mm bmm addmm baddbmm addbmm mv dot _scaled_mm linear mkldnn_linear _addmm_activation",
    "softmax": "_softmax _softmax_backward_data _log_softmax _log_softmax_backward_data",
    "elementwise": (
        "add add_ sub sub_ rsub mul mul_ div div_ pow pow_ neg sqrt sqrt_ rsqrt exp log silu silu_ silu_backward "
        "sigmoid tanh gelu gelu_backward lerp_ addcmul_ addcdiv_ masked_fill masked_fill_ where maximum minimum le lt "
        "ge gt eq ne bitwise_not logical_not cos sin _fused_adamw_ _amp_foreach_non_finite_check_and_unscale_"
    ),
    "norms and sums": (
        "sum mean var amax max min logsumexp nll_loss_forward nll_loss_backward _fused_rms_norm "
        "_fused_rms_norm_backward native_layer_norm native_layer_norm_backward"
    ),
    "copies and fills": (
        "copy_ fill_ zero_ cat _to_copy clone index_select index gather embedding_dense_backward scatter_ arange "
        "contiguous"
    ),
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}
COMPILED = "fused by the compiler"
KINDS = (*_KINDS, COMPILED, BOOKKEEPING, OUTSIDE)


@dataclass(frozen=True)
class Phase:
    """One phase of a profiled step.

    Attributes:
        name: the phase.
        seconds: the mean of the profiled steps, as are the operators' times.
        operators: rows of the record: `name`, `calls`, `self_s`, `device_s`, per step, the largest first.
        on_device: whether times are a device's; otherwise they are the host's.
    """

    name: str
    seconds: float
    operators: list[dict[str, Any]]
    on_device: bool

    def time(self, operator: dict[str, Any]) -> float:
        """Return what counts of an operator's time."""
        return float(operator["device_s"] if self.on_device else operator["self_s"])

    @property
    def calls(self) -> float:
        """How many operators are called in a step."""
        return sum(each["calls"] for each in self.operators if each["name"].startswith("aten::"))

    def by_kind(self) -> dict[str, float]:
        """Return the seconds of each of `KINDS`; framework overhead is the part of the phase outside every operator."""
        found = dict.fromkeys(KINDS, 0.0)
        for operator in self.operators:
            found[kind_of(operator["name"])] += self.time(operator)
        found[OUTSIDE] = max(0.0, self.seconds - sum(found.values()))
        return found

    def top(self, count: int) -> list[dict[str, Any]]:
        """Return the operators that take the most time."""
        ranked = sorted(self.operators, key=lambda each: -self.time(each))
        return [each for each in ranked[:count] if self.time(each) > 0]


def count(calls: float | None) -> str:
    """Return a number of calls in a step, which is whole unless steps differ."""
    if calls is None:
        return units.NOTHING
    return f"{calls:.0f}" if abs(calls - round(calls)) < 1e-6 else f"{calls:.1f}"


def place(group: Group, shown: Sequence[Group]) -> str:
    """Return how a step differs from others, such as `a training step of nano, context 128`."""
    return f"{STEPS[group.point['passes']]} of {where(group, shown, 'passes')}"


def kind_of(operator: str) -> str:
    """Return the kind of work that an operator does."""
    if operator.startswith("triton_"):
        return COMPILED
    name = operator.removeprefix("aten::")
    if name.startswith("_foreach_"):
        return "copies and fills" if "copy" in name or "zero" in name else "elementwise"
    if "linear_pointwise" in name or name == "_mkl_linear":
        return MATRIX_PRODUCTS
    return _KIND_OF.get(name, BOOKKEEPING)


def phases(group: Group) -> list[Phase]:
    """Return the phases of a point's first record; none where it has no numbers."""
    if not group.records:
        return []
    details, found = group.records[0].details, []
    on_device = any(each["device_s"] for each in details["operators"])
    for name in PHASES:
        if (seconds := profiled_s(group, name)) is not None:
            operators = [each for each in details["operators"] if each["phase"] == name]
            found.append(Phase(name, seconds, operators, on_device))
    return found


def whole(found: Sequence[Phase]) -> dict[str, float]:
    """Return the seconds of each kind over all phases."""
    totals = dict.fromkeys(KINDS, 0.0)
    for phase in found:
        for kind, seconds in phase.by_kind().items():
            totals[kind] += seconds
    return totals


def profiled_s(group: Group, name: str = WHOLE) -> float | None:
    """Return the mean seconds of a phase or of the whole step under the profiler, which only sums operators."""
    samples = processes(group.records[:1], f"profiled_{name}_s")
    return float(np.mean(samples[0])) if samples else None


def sum_over_step(group: Group) -> float | None:
    """Return the sum of the profiled phases over the profiled step."""
    parts, step = [phase.seconds for phase in phases(group)], profiled_s(group)
    return sum(parts) / step if parts and step else None


def adds_up(group: Group) -> list[Mark]:
    """Return a warning if the profiled phases do not add up to the profiled step."""
    ratio = sum_over_step(group)
    if ratio is None or abs(ratio - 1) <= ADDS_UP_WITHIN:
        return []
    return [Mark("parts and whole differ", f"the profiled phases' sum is {units.ratio(ratio)} the step")]


def profiled(group: Group) -> Summary | None:
    """Return the summary of the profiled steps, with the warning about their phases."""
    found = group.summary(f"profiled_{WHOLE}_s")
    return dataclasses.replace(found, marks=(*found.marks, *adds_up(group))) if found else None


def slowdown(group: Group) -> float | None:
    """Return the profiled step's time over that of a step without the profiler."""
    profiled, plain = profiled_s(group), group.summary(f"{WHOLE}_s")
    return profiled / plain.median if profiled and plain and plain.median else None


def attention(group: Group, phase: Phase) -> dict[str, float]:
    """Return the seconds of each part of attention in a phase; empty where its parts were not recorded."""
    ranges = [each for each in group.records[0].details["ranges"] if each["phase"] == phase.name]
    return {each["name"]: each["device_s"] if phase.on_device else each["host_s"] for each in ranges}
