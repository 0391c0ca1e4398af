"""Findings about low precision: the errors of sums, and the dtypes that autocast chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepbench.experiments.numerics.cases import CASES, NAMES, TENSORS, WAYS, devices_of, rounding
from stepbench.experiments.numerics.cell import TERM, TERMS
from stepbench.reporting import units
from stepbench.reporting.columns import axis_words
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, listing, said
from stepbench.reporting.frames import Results


def find(results: Results) -> list[Finding]:
    """Return which sum has which error and why, and which tensors autocast leaves in float32."""
    found = []
    group = results.group(case="accumulation")
    if group is not None and group.records:
        found += said("accumulation", _sums(group.records[0].scalars), Evidence.of([group]))
    for case, precision in CASES.items():
        group = results.group(case=case)
        if group is not None and group.records:
            found += said(
                "autocast", _dtypes(group.records[0].scalars, precision, devices_of([group])), Evidence.of([group])
            )
    return found


def _sums(scalars: Mapping[str, Any]) -> list[str]:
    """Say how large the error of each sum is, and how much of it is the rounding of the term."""
    exact = scalars["sum_fp64"]
    off = {way: scalars[f"sum_{way}"] - exact for way in WAYS}
    worst, best = max(off, key=lambda way: abs(off[way])), min(off, key=lambda way: abs(off[way]))
    found = [
        f"Of {len(WAYS)} ways to add up {TERMS} times {TERM}, “{WAYS[worst]}” has the largest error "
        f"({units.scientific(off[worst])}, {units.percent(abs(off[worst]) / exact)} of the sum) and “{WAYS[best]}” the "
        f"smallest ({units.scientific(off[best])})."
    ]
    kept = off.get("fp32_sum_of_fp16_terms")
    if kept:
        explained = rounding("fp32_sum_of_fp16_terms", kept)
        found.append(
            f"As a float16 the term is {units.exactly(explained['term'])}. This rounding explains "
            f"{units.percent(explained['rounding_ratio'])} of the "
            f"error {units.scientific(kept)} of float16 terms added up in float32."
        )
    upcast = "fp32_sum_of_upcast_fp16_terms"
    if kept is not None and upcast in off:
        same = off[upcast] == kept
        found.append(
            "Upcasting each term first does not change a bit of the sum: the addition upcasts anyway."
            if same
            else f"Upcasting each term first changes the error to {units.scientific(off[upcast])}."
        )
    return found


def _dtypes(scalars: Mapping[str, Any], precision: str, devices: Sequence[str]) -> list[str]:
    """Say which tensors have which dtype under the autocast of each device, and where the devices differ."""
    found: dict[str, dict[str, str]] = {}  # device -> tensor -> dtype
    for device in devices:
        known = {tensor: scalars.get(f"{device}_{tensor}_dtype") for tensor in TENSORS}
        found[device] = {tensor: str(dtype) for tensor, dtype in known.items() if dtype is not None}
    sentences = []
    for device, by_tensor in found.items():
        by_dtype: dict[str, list[str]] = {}
        for tensor, dtype in by_tensor.items():
            by_dtype.setdefault(dtype, []).append(axis_words(tensor))
        parts = [f"{dtype}: {listing(names, most=len(names))}" for dtype, names in by_dtype.items()]
        if parts:
            norms = {by_tensor.get(name) for name in ("layer_norm", "rms_norm")}
            differ = " It treats the two norms differently." if len(norms) > 1 else ""
            sentences.append(f"Under autocast to {precision} on {NAMES[device]}, {'; '.join(parts)}.{differ}")
    for tensor in TENSORS:
        dtypes = {device: by_tensor[tensor] for device, by_tensor in found.items() if tensor in by_tensor}
        if len(set(dtypes.values())) > 1:
            parts = [f"{dtype} on {NAMES[device]}" for device, dtype in dtypes.items()]
            sentences.append(
                f"Autocast to {precision} differs between devices: {axis_words(tensor)} is {listing(parts)}."
            )
    return sentences
