"""What rounding did to a sum, and which dtypes autocast chose: a picture and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stepbench.reporting import figures, units
from stepbench.reporting.findings import listing

_LINES: tuple[Any, ...] = ("-", "-", (0, (6, 3)), (0, (1, 2.5)))  # the last two lie on each other


@figures.styled
def errors(details: Mapping[str, Any], ways: Mapping[str, str], description: str) -> Figure:
    """Draw the relative error of each way to add over the number of terms.

    Args:
        details: `terms`, `sums` by way, and `sums_fp64`, as `numerics` records them.
        ways: way -> its name for people.
        description: the figure's description.
    """
    figure = figures.new(3.9, description)
    axes = figure.subplots()
    terms, exact = np.array(details["terms"]), np.array(details["sums_fp64"])
    styles = zip(ways.items(), figures.PALETTE, figures.MARKERS, _LINES, strict=False)
    for index, ((way, words), color, marker, line) in enumerate(styles):
        error = np.abs(np.array(details["sums"][way]) / exact - 1)
        shown = np.where(error > 0, error, np.nan)  # no error at all has no place on a logarithmic axis
        every = (4 + 3 * index, 24)
        axes.plot(terms, shown, color=color, linestyle=line, marker=marker, markevery=every, label=words)
    for dtype, digits in (("fp16", 11), ("fp32", 24)):
        axes.axhline(2.0**-digits, color=figures.MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        style: dict[str, Any] = {"fontsize": 8.5, "color": figures.MUTED, "va": "center", "annotation_clip": False}
        at = (terms[-1], 2.0**-digits)
        axes.annotate(f"unit roundoff\nof {dtype}", at, xytext=(6, 0), textcoords="offset points", **style)
    axes.set_yscale("log")
    # A sum that happens to be right for a moment, where its error changes sign, would stretch the axis by many decades.
    axes.set_ylim(bottom=2.0**-26)
    axes.set_xlabel("number of terms")
    axes.set_ylabel("relative error of the sum")
    axes.set_xlim(0, terms[-1])
    figures.legend_above(figure, 2)
    return figure


def sums(scalars: Mapping[str, Any], ways: Mapping[str, str], term: float, terms: int) -> list[str]:
    """Say how far each sum is off, and how much of it is the rounding of the term alone."""
    exact = scalars["sum_fp64"]
    off = {way: scalars[f"sum_{way}"] - exact for way in ways}
    worst, best = max(off, key=lambda way: abs(off[way])), min(off, key=lambda way: abs(off[way]))
    found = [
        f"Of the {len(ways)} ways to add {term} up {terms} times, “{ways[worst]}” is off by most "
        f"({units.scientific(off[worst])}, {units.percent(abs(off[worst]) / exact)} of the sum), “{ways[best]}” by "
        f"least ({units.scientific(off[best])})."
    ]
    rounded = float(np.float16(term))
    kept = off.get("fp32_sum_of_fp16_terms")
    if kept:
        share = terms * (rounded - term) / kept
        found.append(
            f"As a float16 the term is {units.exactly(rounded)}. That alone explains {units.percent(share)} of the "
            f"error {units.scientific(kept)} that is left when float16 terms are added up in float32."
        )
    upcast = "fp32_sum_of_upcast_fp16_terms"
    if kept is not None and upcast in off:
        same = off[upcast] == kept
        found.append(
            "Upcasting each term first changes nothing, to the last bit: the addition does it anyway."
            if same
            else f"Upcasting each term first changes the error to {units.scientific(off[upcast])}."
        )
    return found


def dtypes(scalars: Mapping[str, Any], tensors: Sequence[str], precision: str) -> list[str]:
    """Say which tensors have which dtype under autocast."""
    by_dtype: dict[str, list[str]] = {}
    for tensor in tensors:
        by_dtype.setdefault(str(scalars[f"{tensor}_dtype"]), []).append(tensor.replace("_", " "))
    parts = [f"{dtype}: {_all(names)}" for dtype, names in by_dtype.items()]
    norms = {scalars[f"{name}_dtype"] for name in ("layer_norm", "rms_norm") if name in tensors}
    differ = " Autocast treats the two norms differently here." if len(norms) > 1 else ""
    return [f"Under autocast to {precision}, {'; '.join(parts)}.{differ}"]


def _all(names: Sequence[str]) -> str:
    return listing(names) if len(names) <= 2 else f"{', '.join(names[:-1])} and {names[-1]}"
